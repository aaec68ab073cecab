// Draws scenes into the panes of one canvas. `state` is what the controls hold (see element.js).

const FRUSTUM = 0.1;
const OWN_FRUSTUM = 0.2;
const LINE_FLOATS = 7;
const SEGMENT_VERTICES = 6;
const SPLAT_OVERLAP = 1.75;
const LARGEST_SPLAT = 64;

class Renderer {
  constructor(canvas, scenes) {
    const gl = canvas.getContext("webgl2", { antialias: false, alpha: false, powerPreference: "high-performance" });
    if (!gl) throw new Error("This browser offers no WebGL 2, which the viewer needs.");
    this.gl = gl;
    this.canvas = canvas;
    this.points = this.program(POINTS_VERTEX, POINTS_FRAGMENT);
    this.screen = this.program(SCREEN_VERTEX, SCREEN_FRAGMENT);
    this.lines = this.program(LINES_VERTEX, LINES_FRAGMENT);
    this.picture = this.program(PICTURE_VERTEX, PICTURE_FRAGMENT);
    this.empty = gl.createVertexArray();
    this.lineArray = this.lineVertices();
    this.target = gl.createFramebuffer();
    this.scenes = scenes.map((scene) => ({
      scene,
      vertices: this.pointVertices(scene.points),
      pictures: this.pictureTexture(scene),
    }));
  }

  program(vertex, fragment) {
    const { gl } = this;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
      const logs = gl.getAttachedShaders(program).map((shader) => gl.getShaderInfoLog(shader));
      throw new Error(`A shader does not build: ${[...logs, gl.getProgramInfoLog(program)].join(" ")}`);
    }
    const at = {};
    for (let i = 0; i < gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS); i++) {
      const name = gl.getActiveUniform(program, i).name.replace("[0]", "");
      at[name] = gl.getUniformLocation(program, name);
    }
    return { program, at };
  }

  pointVertices(bytes) {
    const { gl } = this;
    const array = gl.createVertexArray();
    gl.bindVertexArray(array);
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, bytes, gl.STATIC_DRAW);
    for (let i = 0; i < 4; i++) gl.enableVertexAttribArray(i);
    gl.vertexAttribPointer(0, 3, gl.UNSIGNED_SHORT, false, POINT_BYTES, 0);
    gl.vertexAttribIPointer(1, 2, gl.UNSIGNED_BYTE, POINT_BYTES, 6);
    gl.vertexAttribPointer(2, 4, gl.UNSIGNED_BYTE, true, POINT_BYTES, 8);
    gl.vertexAttribPointer(3, 3, gl.BYTE, true, POINT_BYTES, 12);
    return array;
  }

  lineVertices() {
    const { gl } = this;
    const array = gl.createVertexArray();
    gl.bindVertexArray(array);
    this.lineBuffer = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, this.lineBuffer);
    const stride = 4 * LINE_FLOATS;
    for (const [place, size, kind, scaled, offset] of [
      [0, 3, gl.FLOAT, false, 0],
      [1, 3, gl.FLOAT, false, 12],
      [2, 4, gl.UNSIGNED_BYTE, true, 24],
    ]) {
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, size, kind, scaled, stride, offset);
    }
    return array;
  }

  // All pictures of a scene as layers; their pixels are the points' colours.
  pictureTexture(scene) {
    const { gl } = this;
    const count = scene.views * scene.pixels;
    const pixels = new Uint8Array(4 * count).fill(255);
    for (let i = 0; i < count; i++) {
      for (let channel = 0; channel < 3; channel++) pixels[4 * i + channel] = scene.colour[channel * count + i];
    }
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D_ARRAY, texture);
    gl.texImage3D(
      gl.TEXTURE_2D_ARRAY, 0, gl.RGBA8, scene.width, scene.height, scene.views, 0, gl.RGBA, gl.UNSIGNED_BYTE, pixels,
    );
    gl.texParameteri(gl.TEXTURE_2D_ARRAY, gl.TEXTURE_MIN_FILTER, gl.LINEAR);
    gl.texParameteri(gl.TEXTURE_2D_ARRAY, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
    gl.texParameteri(gl.TEXTURE_2D_ARRAY, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
    return texture;
  }

  // Gives the canvas the size of its box on the page.
  fit() {
    const scale = Math.min(2, devicePixelRatio || 1);
    const width = Math.max(1, Math.round(this.canvas.clientWidth * scale));
    const height = Math.max(1, Math.round(this.canvas.clientHeight * scale));
    this.scale = scale;
    if (this.canvas.width === width && this.canvas.height === height && this.colours) return;
    this.canvas.width = width;
    this.canvas.height = height;
    const { gl } = this;
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.target);
    for (const texture of [this.colours, this.depths]) if (texture) gl.deleteTexture(texture);
    this.colours = this.attach(gl.RGBA8, gl.COLOR_ATTACHMENT0);
    this.depths = this.attach(gl.DEPTH_COMPONENT24, gl.DEPTH_ATTACHMENT);
  }

  attach(format, place) {
    const { gl } = this;
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texStorage2D(gl.TEXTURE_2D, 1, format, this.canvas.width, this.canvas.height);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, place, gl.TEXTURE_2D, texture, 0);
    return texture;
  }

  // Panes beside each other, or one above the other where the canvas is narrow: x, y (from below), width, height.
  panes() {
    const { width, height } = this.canvas;
    const count = this.scenes.length;
    const stacked = count > 1 && width < 1.1 * height;
    return this.scenes.map((_, i) => {
      const [from, to] = [i / count, (i + 1) / count];
      if (stacked) return [0, Math.round((1 - to) * height), width, Math.round(height / count)];
      const left = Math.round(from * width);
      return [left, 0, Math.round(to * width) - left, height];
    });
  }

  draw(orbit, views, state) {
    const { gl } = this;
    this.fit();
    const panes = this.panes();
    const looks = this.scenes.map(({ scene }, i) => {
      const aspect = panes[i][2] / panes[i][3];
      return state.through ? lookThrough(scene, views[i], aspect) : orbit.look(aspect);
    });
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.target);
    gl.disable(gl.BLEND);
    gl.enable(gl.DEPTH_TEST);
    gl.depthFunc(gl.LESS);
    gl.depthMask(true);
    this.clip(0, 0, this.canvas.width, this.canvas.height);
    gl.clearColor(0, 0, 0, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    this.scenes.forEach((entry, i) => this.drawPoints(entry, looks[i], panes[i], views[i], state));
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    this.clip(0, 0, this.canvas.width, this.canvas.height);
    this.drawScreen();
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);
    this.scenes.forEach((entry, i) => this.drawOverlays(entry, looks[i], panes[i], views[i], state));
  }

  clip(...rectangle) {
    const { gl } = this;
    gl.enable(gl.SCISSOR_TEST);
    gl.viewport(...rectangle);
    gl.scissor(...rectangle);
  }

  drawPoints({ scene, vertices }, look, pane, current, state) {
    const { gl } = this;
    const { program, at } = this.points;
    this.clip(...pane);
    gl.useProgram(program);
    gl.bindVertexArray(vertices);
    gl.uniformMatrix4fv(at.view, false, look.view);
    gl.uniformMatrix4fv(at.projection, false, look.projection);
    gl.uniform3fv(at.low, scene.low);
    gl.uniform3fv(at.size, scene.size);
    gl.uniform3fv(at.eye, look.eye);
    gl.uniform1f(at.confidence, state.confidence);
    gl.uniform1f(at.slope, look.slope / pane[3]);
    gl.uniform1f(at.near, NEAR);
    gl.uniform1f(at.far, FAR);
    gl.uniform1f(at.largest, LARGEST_SPLAT * this.scale);
    gl.uniform1i(at.mode, COLOUR_MODES.indexOf(state.colour));
    gl.uniform1i(at.seeThrough, state.seeThrough && !state.through);
    const shown = SHOWN.indexOf(state.shown);
    for (let view = 0; view < scene.views; view++) {
      if (view !== current && !state.allViews) continue;
      // What moves is somewhere else in every view, so only the current view's may be drawn.
      if (view !== current && shown === 2) continue;
      gl.uniform1i(at.shown, view === current ? shown : 1);
      gl.uniform3fv(at.source, centre(scene, view));
      const perPixel = 1 / Math.sqrt(scene.intrinsics[4 * view] * scene.intrinsics[4 * view + 1]);
      gl.uniform1f(at.pixels, (state.size * SPLAT_OVERLAP * perPixel * pane[3]) / (2 * look.slope));
      gl.drawArrays(gl.POINTS, view * scene.pixels, scene.pixels);
    }
  }

  drawScreen() {
    const { gl } = this;
    const { program, at } = this.screen;
    gl.useProgram(program);
    gl.bindVertexArray(this.empty);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, this.colours);
    gl.activeTexture(gl.TEXTURE1);
    gl.bindTexture(gl.TEXTURE_2D, this.depths);
    gl.uniform1i(at.colours, 0);
    gl.uniform1i(at.depths, 1);
    gl.uniform1f(at.radius, 1.4 * this.scale);
    gl.uniform1f(at.near, NEAR);
    gl.uniform1f(at.far, FAR);
    gl.depthFunc(gl.ALWAYS);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    gl.depthFunc(gl.LEQUAL);
  }

  drawOverlays(entry, look, pane, current, state) {
    this.clip(...pane);
    if (state.flow && entry.scene.numArrows) {
      this.drawLines(arrowLines(entry.scene, current, look.eye), look, pane, 1.4);
    }
    if (!state.cameras || state.through) return;
    for (const view of framedViews(entry.scene)) {
      if (view !== current) this.drawPicture(entry, look, view, FRUSTUM, 0.8);
    }
    this.drawPicture(entry, look, current, OWN_FRUSTUM, 0.94);
    this.drawLines(frustumLines(entry.scene, current), look, pane, 1);
    this.drawLines(frustum(entry.scene, current, OWN_FRUSTUM, [1, 1, 1, 0.95]), look, pane, 1.8);
    this.drawLines(pathLines(entry.scene, current), look, pane, 3);
  }

  // The picture of a view in its frustum, at distance `reach` from the camera.
  drawPicture({ scene, pictures }, look, view, reach, opacity) {
    const { gl } = this;
    const { program, at } = this.picture;
    gl.useProgram(program);
    gl.bindVertexArray(this.empty);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D_ARRAY, pictures);
    gl.uniform1i(at.pictures, 0);
    gl.uniformMatrix4fv(at.view, false, look.view);
    gl.uniformMatrix4fv(at.projection, false, look.projection);
    gl.uniform1f(at.layer, view);
    gl.uniform1f(at.opacity, opacity);
    const [, topLeft, topRight, bottomRight, bottomLeft] = frustumCorners(scene, view, reach);
    gl.uniform3fv(at.corners, [topLeft, topRight, bottomLeft, bottomRight].flat());
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
  }

  // Full where visible, faint where hidden behind points.
  drawLines(segments, look, pane, width) {
    if (!segments.length) return;
    const { gl } = this;
    const { program, at } = this.lines;
    const count = segments.length * SEGMENT_VERTICES;
    const floats = new Float32Array(count * LINE_FLOATS);
    const bytes = new Uint8Array(floats.buffer);
    segments.forEach(([from, to, tint], i) => {
      const colour = tint.map((part) => Math.round(255 * part));
      for (let vertex = 0; vertex < SEGMENT_VERTICES; vertex++) {
        const at = (i * SEGMENT_VERTICES + vertex) * LINE_FLOATS;
        floats.set(from, at);
        floats.set(to, at + 3);
        bytes.set(colour, 4 * (at + 6));
      }
    });
    gl.useProgram(program);
    gl.bindVertexArray(this.lineArray);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.lineBuffer);
    gl.bufferData(gl.ARRAY_BUFFER, floats, gl.STREAM_DRAW);
    gl.uniformMatrix4fv(at.view, false, look.view);
    gl.uniformMatrix4fv(at.projection, false, look.projection);
    gl.uniform2f(at.viewport, pane[2], pane[3]);
    gl.uniform1f(at.width, width * this.scale);
    gl.uniform1f(at.near, NEAR);
    gl.depthMask(false);
    for (const [compare, opacity] of [[gl.LEQUAL, 1], [gl.GREATER, 0.16]]) {
      gl.depthFunc(compare);
      gl.uniform1f(at.opacity, opacity);
      gl.drawArrays(gl.TRIANGLES, 0, count);
    }
    gl.depthMask(true);
    gl.depthFunc(gl.LEQUAL);
  }
}
