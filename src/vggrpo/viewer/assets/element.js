// <vggrpo-scene>: the canvas with its controls. It holds its data as JSON in a script element.

const SPEEDS = [["0.25", "¼×"], ["0.5", "½×"], ["1", "1×"], ["2", "2×"]];
const COLOUR_NAMES = { image: "Image", error: "Error", motion: "Motion", confidence: "Confidence" };
const SHOWN_NAMES = { all: "All", static: "Static", moving: "Moving" };
const GRADIENT = `linear-gradient(90deg, ${RAMP.join(", ")})`;
const PLAY = '<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M4 2.5v11l9-5.5z"/></svg>';
const PAUSE = '<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M4 2.5h3v11H4zM9 2.5h3v11H9z"/></svg>';

// An element with attributes and children; text is text.
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;

class SceneElement extends HTMLElement {
  connectedCallback() {
    if (this.shadowRoot) return;
    this.attachShadow({ mode: "open" });
    this.shadowRoot.append(make("style", {}, STYLE), make("p", { class: "message" }, "4D scene"));
    this.dataset.state = "waiting";
    // Pages may hold several scenes: each is unpacked when it comes near the window.
    const near = new IntersectionObserver(
      (entries) => {
        if (!entries.some((entry) => entry.isIntersecting)) return;
        near.disconnect();
        this.start().catch((error) => this.fail(error));
      },
      { rootMargin: "400px" },
    );
    near.observe(this);
  }

  fail(error) {
    this.dataset.state = "failed";
    this.shadowRoot.querySelector(".message").textContent = error.message;
  }

  async start() {
    this.dataset.state = "loading";
    const data = JSON.parse(this.querySelector("script").textContent);
    this.scenes = await Promise.all(data.scenes.map(decodeScene));
    this.views = Math.max(...this.scenes.map((scene) => scene.views));
    this.longest = this.scenes.find((scene) => scene.views === this.views);
    this.options = {
      colour: "image", shown: "all", size: 1, confidence: 0,
      cameras: true, flow: true, allViews: false, seeThrough: true, through: false,
    };
    this.place = 0;
    this.speed = 1;
    this.build();
    this.renderer = new Renderer(this.canvas, this.scenes);
    const [first] = this.scenes;
    this.orbit = new Orbit(first.centre, Math.max(...this.scenes.map((scene) => scene.radius)));
    this.listen();
    this.playing = this.hasAttribute("standalone") && !matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.changed();
  }

  // The view that each scene shows: all start and end together.
  currentViews() {
    const view = Math.min(this.views - 1, Math.floor(this.place + 1e-6));
    return this.scenes.map((scene) =>
      scene.views === this.views ? view : Math.round((view * (scene.views - 1)) / Math.max(1, this.views - 1)),
    );
  }

  get secondsPerView() {
    const { times } = this.longest;
    return times.length > 1 ? (times[times.length - 1] - times[0]) / (times.length - 1) : 1;
  }

  build() {
    const has = (name) => this.scenes.some((scene) => scene[name]);
    this.canvas = make("canvas", { tabindex: 0, role: "img", "aria-label": this.describe() });
    const [{ prompt }] = this.scenes;
    this.sharedPrompt = this.scenes.every((scene) => scene.prompt === prompt) ? prompt : null;
    this.labels = this.scenes.map((scene, i) => this.paneLabel(scene, i));
    this.errors = this.labels.map((label) => label.querySelector("[data-view-error]"));
    this.legend = make("div", { class: "legend" });
    const colours = COLOUR_MODES.filter(
      (mode) => (mode !== "confidence" || has("confidence")) && (mode !== "motion" || has("knowsMotion")),
    );
    this.play = make("button", { class: "play", type: "button" });
    this.timeline = make("input", { type: "range", min: 0, max: this.views - 1, step: 1, value: 0, "aria-label": "View" });
    const strips = this.scenes.map((scene) => make("i", { style: `background: ${strip(scene)}` }));
    this.clock = make("output", { class: "clock" });
    this.rate = make("select", { "aria-label": "Speed", title: "Speed" },
      ...SPEEDS.map(([value, name]) => make("option", { value, selected: value === "1" }, name)));
    const reset = make("button", { type: "button", class: "icon", "data-action": "reset", title: "Reset the view (R)", "aria-label": "Reset the view" }, "⟲");
    const wide = make("button", { type: "button", class: "icon", "data-action": "fullscreen", title: "Full screen (F)", "aria-label": "Full screen" }, "⤢");
    const time = make("div", { class: "time" }, this.play,
      make("div", { class: "track", title: "Colour: the camera's acceleration" }, make("div", { class: "strips" }, ...strips), this.timeline),
      this.clock, this.rate, reset, wide);
    const groups = [
      this.choice("Look", "through", [[false, "Orbit"], [true, "Camera"]]),
      this.choice("Colour", "colour", colours.map((mode) => [mode, COLOUR_NAMES[mode]])),
      has("knowsMotion") ? this.choice("Points", "shown", SHOWN.map((name) => [name, SHOWN_NAMES[name]])) : null,
      this.toggles([
        ["allViews", "All views", "Points of all views at once"],
        ["cameras", "Cameras", "The camera's path and frusta"],
        has("numArrows") ? ["flow", "Flow", "Scene flow of what moves"] : null,
        ["seeThrough", "See through", "Leave out surfaces seen from behind"],
      ]),
      this.slider("Size", "size", 0.4, 3, 0.1),
      has("confidence") ? this.slider("Confidence", "confidence", 0, 0.95, 0.05) : null,
    ];
    const stage = make("div", { class: "stage" }, this.canvas, make("div", { class: "labels" }, ...this.labels),
      make("div", { class: "foot" }, make("p", {}, this.sharedPrompt || ""), this.legend));
    const controls = make("div", { class: "tools" }, ...groups.filter((group) => group !== null));
    this.box = make("div", { class: "box" }, stage, time, controls);
    this.shadowRoot.querySelector(".message").replaceWith(this.box);
  }

  describe() {
    const names = this.scenes.map((scene) => scene.label || "scene").join(" and ");
    return `4D scene: ${names}. Drag to turn, shift-drag to move, scroll to zoom.`;
  }

  paneLabel(scene, index) {
    const rows = scene.rewards.map(([name, value]) => {
      const before = index ? this.scenes[0].rewards.find(([other]) => other === name)?.[1] : undefined;
      const change = Number.isFinite(before) && Number.isFinite(value) ? value - before : NaN;
      return make("div", {}, make("dt", {}, name), make("dd", {}, Number.isFinite(value) ? value.toFixed(3) : "–"),
        Math.abs(change) >= 0.0005
          ? make("dd", { class: change > 0 ? "up" : "down" }, `${change < 0 ? "−" : "+"}${Math.abs(change).toFixed(3)}`)
          : null);
    });
    rows.push(make("div", {}, make("dt", {}, "Error of this view"), make("dd", { "data-view-error": true })));
    return make("div", { class: "label" }, scene.label ? make("strong", {}, scene.label) : null, make("dl", {}, ...rows),
      scene.prompt && !this.sharedPrompt ? make("p", {}, scene.prompt) : null);
  }

  choice(title, name, entries) {
    const buttons = entries.map(([value, text]) => make("button", { type: "button", "data-name": name, "data-value": String(value) }, text));
    return make("div", { class: "group", role: "group", "aria-label": title }, make("span", {}, title), make("div", { class: "segments" }, ...buttons));
  }

  toggles(entries) {
    const buttons = entries.filter(Boolean).map(([name, text, title]) => make("button", { type: "button", "data-name": name, title }, text));
    return make("div", { class: "group", role: "group", "aria-label": "Layers" }, make("span", {}, "Layers"), make("div", { class: "segments apart" }, ...buttons));
  }

  slider(title, name, min, max, step) {
    const input = make("input", { type: "range", min, max, step, value: this.options[name], "data-name": name, "aria-label": title });
    return make("label", { class: "group" }, make("span", {}, title), input);
  }

  listen() {
    const root = this.shadowRoot;
    root.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      const { name, value, action } = button.dataset;
      if (button === this.play) this.playing = !this.playing;
      else if (action) this.act(action);
      else if (value === undefined) this.options[name] = !this.options[name];
      else this.options[name] = value === "true" || value === "false" ? value === "true" : value;
      this.changed();
    });
    root.addEventListener("input", (event) => {
      const { name } = event.target.dataset;
      if (name) this.options[name] = Number(event.target.value);
      else if (event.target === this.timeline) this.seek(Number(this.timeline.value));
      this.changed();
    });
    this.rate.addEventListener("change", () => (this.speed = Number(this.rate.value)));
    this.box.addEventListener("keydown", (event) => this.key(event));
    this.drag();
    new ResizeObserver(() => this.changed()).observe(this.canvas);
    new IntersectionObserver(([entry]) => {
      this.visible = entry.isIntersecting;
      this.changed();
    }).observe(this);
    document.addEventListener("fullscreenchange", () => this.changed());
    this.canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    this.canvas.addEventListener("webglcontextrestored", () => {
      this.renderer = new Renderer(this.canvas, this.scenes);
      this.changed();
    });
  }

  act(action) {
    if (action === "reset") {
      this.orbit.reset();
      this.options.through = false;
    } else if (document.fullscreenElement) document.exitFullscreen();
    else this.requestFullscreen();
  }

  key(event) {
    const own = event.target.matches("input, select");
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const view = Math.floor(this.place + 1e-6);
    if (event.key === " " && !event.target.matches("button, select")) this.playing = !this.playing;
    else if (event.key === "ArrowRight" && !own) this.seek((view + 1) % this.views);
    else if (event.key === "ArrowLeft" && !own) this.seek((view + this.views - 1) % this.views);
    else if (event.key === "r") this.act("reset");
    else if (event.key === "f") this.act("fullscreen");
    else return;
    event.preventDefault();
    this.changed();
  }

  seek(view) {
    this.playing = false;
    this.place = view;
  }

  drag() {
    const touches = new Map();
    const spread = () => {
      const [a, b] = [...touches.values()];
      return Math.hypot(a[0] - b[0], a[1] - b[1]);
    };
    this.canvas.addEventListener("pointerdown", (event) => {
      touches.set(event.pointerId, [event.clientX, event.clientY]);
      this.canvas.setPointerCapture(event.pointerId);
      this.options.through = false;
    });
    this.canvas.addEventListener("pointermove", (event) => {
      const last = touches.get(event.pointerId);
      if (!last) return;
      const [dx, dy] = [event.clientX - last[0], event.clientY - last[1]];
      const before = touches.size === 2 ? spread() : 0;
      touches.set(event.pointerId, [event.clientX, event.clientY]);
      if (touches.size === 2) {
        this.orbit.zoom(before / spread());
        this.orbit.pan(dx / 2, dy / 2, this.canvas.clientHeight);
      } else if (event.shiftKey || event.buttons === 2) this.orbit.pan(dx, dy, this.canvas.clientHeight);
      else this.orbit.turn(dx, dy);
      this.changed();
    });
    for (const name of ["pointerup", "pointercancel"]) {
      this.canvas.addEventListener(name, (event) => touches.delete(event.pointerId));
    }
    this.canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    this.canvas.addEventListener("dblclick", () => {
      this.orbit.reset();
      this.changed();
    });
    this.canvas.addEventListener("wheel", (event) => {
      // In a page the wheel scrolls until the scene has been clicked.
      if (!this.hasAttribute("standalone") && this.shadowRoot.activeElement !== this.canvas) return;
      event.preventDefault();
      this.orbit.zoom(Math.exp(0.0012 * event.deltaY));
      this.changed();
    }, { passive: false });
  }

  changed() {
    if (this.pending) return;
    this.pending = requestAnimationFrame((now) => {
      this.pending = null;
      this.frame(now);
    });
  }

  // Draws once, and goes on by itself only while it plays and can be seen.
  frame(now) {
    const goesOn = this.playing && this.visible !== false && this.views > 1;
    if (goesOn && this.last !== undefined) {
      const step = Math.min(0.25, (now - this.last) / 1000);
      this.place = (this.place + (step * this.speed) / this.secondsPerView) % this.views;
    }
    this.last = goesOn ? now : undefined;
    const views = this.currentViews();
    this.show(views);
    if (!this.renderer.gl.isContextLost()) this.renderer.draw(this.orbit, views, this.options);
    this.dataset.state = "ready";
    if (goesOn) this.changed();
  }

  show(views) {
    const { options } = this;
    const view = Math.min(this.views - 1, Math.floor(this.place + 1e-6));
    this.timeline.value = view;
    this.clock.textContent = `${this.longest.times[view].toFixed(2)} s · ${view + 1}/${this.views}`;
    if (this.play.dataset.playing !== String(this.playing)) {
      this.play.dataset.playing = this.playing;
      this.play.innerHTML = this.playing ? PAUSE : PLAY;
      this.play.setAttribute("aria-label", this.playing ? "Pause" : "Play");
    }
    for (const button of this.shadowRoot.querySelectorAll("button[data-name]")) {
      const { name, value } = button.dataset;
      const pressed = value === undefined ? options[name] : String(options[name]) === value;
      button.setAttribute("aria-pressed", pressed);
    }
    this.errors.forEach((place, i) => {
      const error = this.scenes[i].viewError[views[i]];
      place.textContent = Number.isFinite(error) ? percent(error) : "–";
    });
    const keys = [];
    if (options.colour === "error") keys.push(["Reprojection error", "0", `${percent(this.scenes[0].errorReach)} of the depth`]);
    if (options.colour === "confidence") keys.push(["Confidence", "least", "most"]);
    if (options.cameras && !options.through) keys.push(["Camera", "steady", "shaking"]);
    const text = JSON.stringify(keys);
    if (this.legend.dataset.keys === text) return;
    this.legend.dataset.keys = text;
    this.legend.replaceChildren(...keys.map(([title, low, high]) =>
      make("div", {}, make("span", {}, title), make("small", {}, low), make("i", { style: `background: ${GRADIENT}` }), make("small", {}, high))));
  }
}

// The acceleration of the camera over the clip as a background.
function strip(scene) {
  const last = Math.max(1, scene.views - 1);
  const stops = Array.from(scene.acceleration, (value, view) => {
    const [red, green, blue] = ramp(value).map((part) => Math.round(255 * part));
    return `rgb(${red} ${green} ${blue}) ${((100 * view) / last).toFixed(1)}%`;
  });
  return stops.length > 1 ? `linear-gradient(90deg, ${stops.join(", ")})` : "none";
}

customElements.define("vggrpo-scene", SceneElement);
