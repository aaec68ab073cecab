"use strict";

// One clock drives all videos: they play by themselves, and any that drifts by more than half a frame is set right.
(() => {
  const player = document.getElementById("player");
  if (!player) return;
  const fps = Number(player.dataset.fps);
  const frames = Number(player.dataset.frames);
  const duration = frames / fps;
  const videos = [...player.querySelectorAll("video")];
  const playheads = [...player.querySelectorAll(".playhead")];
  const button = document.getElementById("play");
  const timeline = document.getElementById("timeline");
  const clock = document.getElementById("clock");
  const rate = document.getElementById("rate");

  let time = 0;
  let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  let last = performance.now();

  const frameAt = (t) => Math.min(frames - 1, Math.floor(t * fps + 1e-6));

  function align(force) {
    const speed = Number(rate.value);
    for (const video of videos) {
      const end = video.duration || duration;
      const wanted = Math.min(playing ? time : (frameAt(time) + 0.5) / fps, end - 0.25 / fps);
      const off = Math.abs(video.currentTime - wanted);
      if (force || (!video.seeking && off > (playing ? 0.5 / fps + 0.04 * speed : 1e-3))) video.currentTime = wanted;
      if (video.playbackRate !== speed) video.playbackRate = speed;
      if (playing && video.paused && time < end - 0.5 / fps) video.play().catch(() => {});
      if (!playing && !video.paused) video.pause();
    }
  }

  function draw() {
    const frame = frameAt(time);
    if (document.activeElement !== timeline || playing) timeline.value = frame;
    clock.textContent = `frame ${frame + 1} of ${frames}, ${time.toFixed(2)} s`;
    button.textContent = playing ? "\u275a\u275a\u2002Pause" : "\u25b6\u2002Play";
    for (const line of playheads) {
      const from = Number(line.dataset.from);
      const to = Number(line.dataset.to);
      const x = from + (to - from) * Math.min(1, frame / Math.max(1, frames - 1));
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
    }
  }

  function tick(now) {
    const step = Math.min(0.25, (now - last) / 1000) * Number(rate.value);
    last = now;
    if (playing) {
      const next = time + step;
      const wrapped = next >= duration;
      time = wrapped ? next % duration : next;
      align(wrapped);
    }
    draw();
    requestAnimationFrame(tick);
  }

  button.addEventListener("click", () => {
    playing = !playing;
    if (!playing) time = frameAt(time) / fps;
    align(true);
  });
  timeline.addEventListener("input", () => {
    playing = false;
    time = Number(timeline.value) / fps;
    align(true);
  });
  for (const video of videos) video.addEventListener("loadeddata", () => align(true));
  align(true);
  requestAnimationFrame(tick);
})();

(() => {
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      const source = document.getElementById(button.dataset.copy);
      try {
        await navigator.clipboard.writeText(source.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(source);
        button.textContent = "Selected";
      }
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
  }
})();

(() => {
  const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.getAttribute("href").slice(1), a]));
  const seen = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) links.get(entry.target.id)?.classList.toggle("here", entry.isIntersecting);
    },
    { rootMargin: "-30% 0px -60% 0px" },
  );
  for (const section of document.querySelectorAll("section[id]")) seen.observe(section);
})();
