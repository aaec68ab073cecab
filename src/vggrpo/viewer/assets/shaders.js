// Colours of a quantity from nothing to much, and the names that the modes have in the shader.

const RAMP = ["#2b3f8c", "#2f8fb3", "#63c29a", "#f2cf5b", "#ef5b3c"];
const COLOUR_MODES = ["image", "error", "motion", "confidence"];
const SHOWN = ["all", "static", "moving"];

const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255);

function ramp(value) {
  const place = Math.max(0, Math.min(1, value)) * (RAMP.length - 1);
  const below = Math.min(RAMP.length - 2, Math.floor(place));
  const [a, b] = [channels(RAMP[below]), channels(RAMP[below + 1])];
  return a.map((start, i) => start + (place - below) * (b[i] - start));
}

const GLSL_RAMP = `
vec3 ramp(float value) {
  vec3 stops[5] = vec3[5](${RAMP.map((hex) => `vec3(${channels(hex).map((c) => c.toFixed(4))})`).join(", ")});
  float place = clamp(value, 0.0, 1.0) * 4.0;
  int below = min(int(place), 3);
  return mix(stops[below], stops[below + 1], place - float(below));
}`;

const POINTS_VERTEX = `#version 300 es
layout(location = 0) in vec3 position;
layout(location = 1) in uvec2 marks;
layout(location = 2) in vec4 colour;
layout(location = 3) in vec3 normal;
uniform vec3 low, size, eye, source;
uniform mat4 view, projection;
uniform float pixels, largest, confidence, slope, near, far;
uniform int mode, shown;
uniform bool seeThrough;
out vec3 shade;
flat out vec3 facing, middle, stretch;
flat out float radius, narrow;
const float EDGE_ON = 0.15;
${GLSL_RAMP}
void main() {
  bool still = (marks.x & 2u) != 0u;
  vec3 point = low + size * position;
  bool oriented = dot(normal, normal) > 0.5;
  vec3 back_to_view = normalize(source - point);
  float own_look = oriented ? dot(normal, back_to_view) : 1.0;
  // What a view saw edge-on lies mostly between a thing and what is behind it.
  bool to_see_through = dot(normal, normalize(eye - point)) < -0.1 || own_look < EDGE_ON;
  bool hidden = (marks.x & 1u) == 0u || colour.a < confidence || (shown == 1 && !still) || (shown == 2 && still)
    || (seeThrough && to_see_through);
  vec4 place = view * vec4(point, 1.0);
  gl_Position = hidden ? vec4(2.0, 2.0, 2.0, 1.0) : projection * place;
  // A splat is what its pixel saw of the surface: an ellipse, the longer the more grazing the view's own look was.
  float grazing = max(own_look, EDGE_ON);
  gl_PointSize = clamp(pixels * distance(point, source) / (grazing * max(-place.z, 1e-3)), 1.5, largest);
  middle = place.xyz;
  radius = -place.z * slope * gl_PointSize;
  vec3 ray = normalize(place.xyz);
  bool flat_on_it = gl_PointSize > 3.0 && oriented;
  facing = flat_on_it ? mat3(view) * normal : -ray;
  narrow = flat_on_it ? grazing : 1.0;
  vec3 slant = back_to_view - dot(normal, back_to_view) * normal;
  stretch = narrow < 0.99 ? mat3(view) * normalize(slant) : vec3(0.0);
  // No disc is seen quite from its edge, where it would vanish.
  float seen = -dot(facing, ray);
  facing += ray * (seen - (seen < 0.0 ? -1.0 : 1.0) * max(abs(seen), 0.1));
  if (mode == 1) {
    shade = marks.y == 255u ? vec3(0.16, 0.17, 0.19) : ramp(float(marks.y) / 254.0);
  } else if (mode == 2) {
    float grey = dot(colour.rgb, vec3(0.299, 0.587, 0.114));
    shade = still ? vec3(0.12 + 0.42 * grey) : mix(vec3(1.0, 0.60, 0.22), colour.rgb, 0.15) * (0.65 + 0.45 * grey);
  } else if (mode == 3) {
    shade = ramp(colour.a);
  } else {
    shade = colour.rgb;
  }
}`;

const POINTS_FRAGMENT = `#version 300 es
precision highp float;
in vec3 shade;
flat in vec3 facing, middle, stretch;
flat in float radius, narrow;
uniform float near, far;
out vec4 result;
void main() {
  // Where the pixel's ray meets the disc's plane.
  vec3 ray = middle + radius * vec3(2.0 * gl_PointCoord.x - 1.0, 1.0 - 2.0 * gl_PointCoord.y, 0.0);
  float across = dot(facing, ray), height = dot(facing, middle);
  if (across * height <= 0.0) discard;
  vec3 hit = ray * height / across;
  vec3 away = (hit - middle) / radius;
  float lengthwise = dot(away, stretch);
  float square = lengthwise * lengthwise;
  square += (dot(away, away) - square) / (narrow * narrow);
  if (square > 1.0) discard;
  // A little further back the further from the middle: the nearest of overlapping discs wins.
  float z = max(0.12 * radius * square - hit.z, near);
  gl_FragDepth = (far + near - 2.0 * far * near / z) / (far - near) * 0.5 + 0.5;
  result = vec4(shade, 1.0);
}`;

const SCREEN_VERTEX = `#version 300 es
void main() {
  gl_Position = vec4(vec2(gl_VertexID & 1, gl_VertexID >> 1) * 4.0 - 1.0, 0.0, 1.0);
}`;

// Eye-dome lighting: a pixel darkens by how far its neighbours stand before it, so that edges and folds of a
// cloud without normals can be read.
const SCREEN_FRAGMENT = `#version 300 es
precision highp float;
uniform sampler2D colours, depths;
uniform float radius, near, far;
out vec4 result;
float logDepth(ivec2 at) {
  float depth = texelFetch(depths, clamp(at, ivec2(0), textureSize(depths, 0) - 1), 0).r;
  return log2(2.0 * near * far / (far + near - (2.0 * depth - 1.0) * (far - near)));
}
void main() {
  ivec2 at = ivec2(gl_FragCoord.xy);
  float depth = texelFetch(depths, at, 0).r;
  gl_FragDepth = depth;
  if (depth == 1.0) {
    float height = gl_FragCoord.y / float(textureSize(depths, 0).y);
    result = vec4(mix(vec3(0.043, 0.047, 0.055), vec3(0.082, 0.090, 0.104), height), 1.0);
    return;
  }
  float own = logDepth(at), sum = 0.0;
  for (int i = 0; i < 8; i++) {
    float angle = 0.7853982 * float(i);
    sum += min(max(0.0, own - 0.015 - logDepth(at + ivec2(round(radius * vec2(cos(angle), sin(angle)))))), 0.25);
  }
  result = vec4(texelFetch(colours, at, 0).rgb * exp(-2.6 * sum / 1.2), 1.0);
}`;

// Segments as quads of a constant width in pixels, cut at the near plane, with soft sides. The six vertices of a
// segment have the same attributes: instances would be slow where WebGL runs without a GPU.
const LINES_VERTEX = `#version 300 es
layout(location = 0) in vec3 from;
layout(location = 1) in vec3 to;
layout(location = 2) in vec4 tint;
uniform mat4 view, projection;
uniform vec2 viewport;
uniform float width, near;
out vec4 colour;
out float side;
void main() {
  int corner = int[6](0, 1, 2, 2, 1, 3)[gl_VertexID % 6];
  vec4 a = view * vec4(from, 1.0), b = view * vec4(to, 1.0);
  float limit = -1.01 * near;
  if (a.z > limit && b.z > limit) { gl_Position = vec4(2.0, 2.0, 2.0, 1.0); return; }
  if (a.z > limit) a = mix(b, a, (limit - b.z) / (a.z - b.z));
  if (b.z > limit) b = mix(a, b, (limit - a.z) / (b.z - a.z));
  vec4 start = projection * a, end = projection * b;
  vec2 along = (end.xy / end.w - start.xy / start.w) * viewport;
  along = dot(along, along) > 0.0 ? normalize(along) : vec2(1.0, 0.0);
  bool first = (corner & 1) == 0;
  vec4 place = first ? start : end;
  side = corner < 2 ? -1.0 : 1.0;
  float half_width = 0.5 * width + 0.75;
  vec2 cap = (first ? -along : along) * 0.25 * width;
  place.xy += (side * half_width * vec2(-along.y, along.x) + cap) * 2.0 / viewport * place.w;
  gl_Position = place;
  colour = tint;
}`;

const LINES_FRAGMENT = `#version 300 es
precision highp float;
in vec4 colour;
in float side;
uniform float width, opacity;
out vec4 result;
void main() {
  float edge = (1.0 - abs(side)) * (0.5 * width + 0.75);
  result = vec4(colour.rgb, colour.a * opacity * clamp(edge / 1.5, 0.0, 1.0));
}`;

const PICTURE_VERTEX = `#version 300 es
uniform mat4 view, projection;
uniform vec3 corners[4];
out vec2 at;
void main() {
  at = vec2(gl_VertexID & 1, gl_VertexID >> 1);
  gl_Position = projection * view * vec4(corners[gl_VertexID], 1.0);
}`;

const PICTURE_FRAGMENT = `#version 300 es
precision highp float;
precision highp sampler2DArray;
uniform sampler2DArray pictures;
uniform float layer, opacity;
in vec2 at;
out vec4 result;
void main() {
  result = vec4(texture(pictures, vec3(at, layer)).rgb, opacity);
}`;
