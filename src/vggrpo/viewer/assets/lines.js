// Everything that is drawn as lines, as segments [from, to, [red, green, blue, opacity]].

const ARROW = [1, 0.76, 0.36];
const MOST_FRUSTA = 12;

// The centre, then the picture's corners (top left, top right, bottom right, bottom left) at distance `reach`.
// Pixel centres are whole numbers, so a picture spans -1/2 to its side - 1/2.
function frustumCorners(scene, view, reach) {
  const [fx, fy, cx, cy] = scene.intrinsics.subarray(4 * view, 4 * view + 4);
  const from = centre(scene, view);
  const [right, down, ahead] = [0, 1, 2].map((axis) => column(scene, view, axis));
  const corner = (u, v) =>
    add(add(add(from, ahead, reach), right, (reach * (u - cx)) / fx), down, (reach * (v - cy)) / fy);
  const [width, height] = [scene.width - 0.5, scene.height - 0.5];
  return [from, corner(-0.5, -0.5), corner(width, -0.5), corner(width, height), corner(-0.5, height)];
}

function frustum(scene, view, reach, tint) {
  const [from, ...corners] = frustumCorners(scene, view, reach);
  return corners.flatMap((corner, i) => [
    [from, corner, tint],
    [corner, corners[(i + 1) % 4], tint],
  ]);
}

// The views whose cameras are always drawn, evenly spread.
function framedViews(scene) {
  const stride = Math.ceil(scene.views / MOST_FRUSTA);
  return Array.from({ length: Math.ceil(scene.views / stride) }, (_, i) => i * stride);
}

// Their frusta, the current one left out.
function frustumLines(scene, current) {
  const others = framedViews(scene).filter((view) => view !== current);
  return others.flatMap((view) => frustum(scene, view, FRUSTUM, [0.78, 0.8, 0.85, 0.26]));
}

// The camera's path, in the colour of its acceleration; what is still to come is dim.
function pathLines(scene, current) {
  const segments = [];
  for (let view = 0; view + 1 < scene.views; view++) {
    const tint = ramp((scene.acceleration[view] + scene.acceleration[view + 1]) / 2);
    segments.push([centre(scene, view), centre(scene, view + 1), [...tint, view < current ? 1 : 0.45]]);
  }
  return segments;
}

// Where points of view 0 have been lately (a faint trail) and are going (an arrow).
function arrowLines(scene, current, eye) {
  const segments = [];
  const last = scene.views - 1;
  const step = Math.max(1, Math.round(scene.views / 8));
  const start = Math.min(current, Math.max(0, last - step));
  const end = Math.min(last, start + step);
  for (let number = 0; number < scene.numArrows; number++) {
    for (let view = Math.max(0, start - 2 * step); view < start; view++) {
      const opacity = 0.35 * (1 - (start - view) / (2 * step + 1));
      segments.push([arrowPoint(scene, number, view), arrowPoint(scene, number, view + 1), [...ARROW, opacity]]);
    }
    const [from, to] = [arrowPoint(scene, number, start), arrowPoint(scene, number, end)];
    const move = add(to, from, -1);
    const length = Math.hypot(...move);
    if (length < 1e-3) continue;
    const along = unit(move);
    const side = unit(cross(along, add(eye, to, -1)));
    const head = Math.min(0.35 * length, 0.05);
    const back = add(to, along, -head);
    segments.push([from, to, [...ARROW, 0.95]]);
    for (const sign of [0.55, -0.55]) segments.push([to, add(back, side, sign * head), [...ARROW, 0.95]]);
  }
  return segments;
}
