// Unpacks what vggrpo/viewer/html_payload.py packs: the two describe one format.

const VALID = 1;
const STATIC = 2;
const POINT_BYTES = 16;

async function inflate(base64) {
  const bytes = Uint8Array.fromBase64
    ? Uint8Array.fromBase64(base64)
    : Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// The arrays of a scene by name. Bytes of 16-bit numbers lie in two planes, low before high; a "delta" array
// holds differences from one element to the next, modulo its range.
function unpack(layout, bytes) {
  const arrays = {};
  let at = 0;
  for (const { name, type, shape, delta } of layout) {
    const count = shape.reduce((product, side) => product * side, 1);
    let values;
    if (type === "f32") {
      values = new Float32Array(bytes.slice(at, at + 4 * count).buffer);
      at += 4 * count;
    } else if (type === "u16") {
      values = new Uint16Array(count);
      for (let i = 0, sum = 0; i < count; i++) {
        const value = bytes[at + i] | (bytes[at + count + i] << 8);
        sum = delta ? (sum + value) & 65535 : value;
        values[i] = sum;
      }
      at += 2 * count;
    } else {
      values = bytes.slice(at, at + count);
      at += count;
      if (delta) for (let i = 1; i < count; i++) values[i] += values[i - 1];
    }
    arrays[name] = values;
  }
  return arrays;
}

async function decodeScene(packed) {
  const arrays = unpack(packed.arrays, await inflate(packed.data));
  const scene = { ...packed, ...arrays, data: null, pixels: packed.height * packed.width };
  scene.size = packed.high.map((high, axis) => (high - packed.low[axis]) / 65535);
  scene.points = interleave(scene);
  return scene;
}

// One vertex: position 3 x u16, flags, error, colour 3 x u8, confidence, normal 3 x i8, nothing.
function interleave(scene) {
  const count = scene.views * scene.pixels;
  const bytes = new Uint8Array(count * POINT_BYTES);
  const words = new Uint16Array(bytes.buffer);
  const signed = new Int8Array(bytes.buffer);
  const { position, colour, flags, error, confidence } = scene;
  for (let i = 0; i < count; i++) {
    const word = i * (POINT_BYTES / 2);
    const byte = i * POINT_BYTES;
    for (let axis = 0; axis < 3; axis++) {
      words[word + axis] = position[axis * count + i];
      bytes[byte + 8 + axis] = colour[axis * count + i];
    }
    bytes[byte + 6] = flags[i];
    bytes[byte + 7] = error[i];
    bytes[byte + 11] = confidence ? confidence[i] : 255;
  }
  for (let view = 0; view < scene.views; view++) addNormals(scene, view, signed);
  return bytes;
}

// Normals from the nearer neighbour on each axis of the raster, turned towards the view's own camera. They decide
// from which side a surface is seen through.
function addNormals(scene, view, out) {
  const { width, height, pixels, position, flags, low, size } = scene;
  const count = scene.views * pixels;
  const camera = centre(scene, view);
  const first = view * pixels;
  const at = (i, axis) => low[axis] + size[axis] * position[axis * count + first + i];
  const reach = (i, j, offset, inside) => {
    if (!inside || !(flags[first + j] & VALID)) return Infinity;
    let square = 0;
    for (let axis = 0; axis < 3; axis++) {
      offset[axis] = at(j, axis) - at(i, axis);
      square += offset[axis] ** 2;
    }
    return square;
  };
  const a = [0, 0, 0], b = [0, 0, 0], c = [0, 0, 0], d = [0, 0, 0];
  for (let row = 0, i = 0; row < height; row++) {
    for (let column = 0; column < width; column++, i++) {
      if (!(flags[first + i] & VALID)) continue;
      const right = reach(i, i + 1, a, column + 1 < width);
      const left = reach(i, i - 1, b, column > 0);
      const down = reach(i, i + width, c, row + 1 < height);
      const up = reach(i, i - width, d, row > 0);
      if (Math.min(right, left) === Infinity || Math.min(down, up) === Infinity) continue;
      const normal = cross(right <= left ? a : b, down <= up ? c : d);
      let facing = 0;
      for (let axis = 0; axis < 3; axis++) facing += normal[axis] * (camera[axis] - at(i, axis));
      const length = Math.hypot(...normal) || 1;
      const factor = (facing < 0 ? -127 : 127) / length;
      for (let axis = 0; axis < 3; axis++) {
        out[(first + i) * POINT_BYTES + 12 + axis] = Math.round(normal[axis] * factor);
      }
    }
  }
}

// Column `axis` of a view's camera-to-world matrix, whose three rows are stored: 0 to 2 are its axes, 3 its centre.
const column = (scene, view, axis) => [0, 1, 2].map((row) => scene.camera[view * 12 + row * 4 + axis]);
const centre = (scene, view) => column(scene, view, 3);

// Positions of arrow `number` in view `view`.
function arrowPoint(scene, number, view) {
  const count = scene.numArrows * scene.views;
  return [0, 1, 2].map(
    (axis) => scene.low[axis] + scene.size[axis] * scene.arrows[axis * count + number * scene.views + view],
  );
}
