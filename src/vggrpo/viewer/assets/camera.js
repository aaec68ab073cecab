// Matrices are column-major; the world has OpenCV axes (+x right, +y down, +z ahead), so up is -y.

const FIELD = (40 * Math.PI) / 180;
const NEAR = 0.02;
const FAR = 400;
const UP = [0, -1, 0];

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const add = (a, b, factor = 1) => a.map((value, i) => value + factor * b[i]);
const cross = (a, b) => [
  a[1] * b[2] - a[2] * b[1],
  a[2] * b[0] - a[0] * b[2],
  a[0] * b[1] - a[1] * b[0],
];
const unit = (a) => {
  const length = Math.hypot(...a) || 1;
  return a.map((value) => value / length);
};

// World to eye, for an eye that looks along `ahead`.
function viewMatrix(eye, right, up, ahead) {
  return new Float32Array([
    right[0], up[0], -ahead[0], 0,
    right[1], up[1], -ahead[1], 0,
    right[2], up[2], -ahead[2], 0,
    -dot(right, eye), -dot(up, eye), dot(ahead, eye), 1,
  ]);
}

// `slope` is the tangent of half the vertical field of view.
function projectionMatrix(slope, aspect) {
  const depth = NEAR - FAR;
  return new Float32Array([
    1 / (slope * aspect), 0, 0, 0,
    0, 1 / slope, 0, 0,
    0, 0, (FAR + NEAR) / depth, -1,
    0, 0, (2 * FAR * NEAR) / depth, 0,
  ]);
}

// A camera that circles a target; shared by all panes.
class Orbit {
  constructor(target, radius) {
    this.home = { target, distance: (0.8 * radius) / Math.sin(FIELD / 2), yaw: 0.3, pitch: 0.28 };
    this.reset();
  }

  reset() {
    Object.assign(this, this.home, { target: [...this.home.target] });
  }

  turn(dx, dy) {
    this.yaw += 0.006 * dx;
    this.pitch = Math.max(-1.5, Math.min(1.5, this.pitch + 0.006 * dy));
  }

  zoom(factor) {
    const nearest = this.home.distance * 0.02;
    this.distance = Math.max(nearest, Math.min(this.home.distance * 12, this.distance * factor));
  }

  // By pixels of a pane that is `height` pixels high.
  pan(dx, dy, height) {
    const { right, up } = this.axes();
    const step = (2 * Math.tan(FIELD / 2) * this.distance) / height;
    this.target = add(add(this.target, right, -dx * step), up, dy * step);
  }

  axes() {
    const flat = Math.cos(this.pitch);
    const ahead = [Math.sin(this.yaw) * flat, Math.sin(this.pitch), Math.cos(this.yaw) * flat];
    const right = unit(cross(ahead, UP));
    return { ahead, right, up: cross(right, ahead) };
  }

  look(aspect) {
    const { ahead, right, up } = this.axes();
    const eye = add(this.target, ahead, -this.distance);
    const slope = Math.tan(FIELD / 2) * Math.max(1, 1.15 / aspect);
    return { eye, slope, view: viewMatrix(eye, right, up, ahead), projection: projectionMatrix(slope, aspect) };
  }
}

// Through the camera of one of the clip's views, with a margin around its picture.
function lookThrough(scene, view, aspect) {
  const [right, down, ahead] = [0, 1, 2].map((axis) => column(scene, view, axis));
  const eye = centre(scene, view);
  const [fx, fy] = scene.intrinsics.subarray(4 * view, 4 * view + 2);
  const slope = 1.06 * Math.max(scene.height / (2 * fy), scene.width / (2 * fx) / aspect);
  const up = down.map((value) => -value);
  return { eye, slope, view: viewMatrix(eye, right, up, ahead), projection: projectionMatrix(slope, aspect) };
}
