"use strict";

// The first video is the clock. All loop by themselves; one that drifts plays a little faster or slower until it
// agrees, and jumps only where it is far off, because a jump costs more than it mends on a busy machine.
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

  const JUMP_SECONDS = 0.4;

  let frame = 0;
  let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;

  // How far a is ahead of b on the loop, between minus and plus half of it.
  const ahead = (a, b) => ((((a - b) % duration) + 1.5 * duration) % duration) - duration / 2;

  function follow() {
    const time = videos[0].currentTime;
    for (const video of videos) {
      const lead = ahead(video.currentTime, time);
      const settled = !video.seeking && !videos[0].seeking;
      if (settled && Math.abs(lead) > JUMP_SECONDS) video.currentTime = time;
      const correction = settled ? Math.max(-0.5, Math.min(0.5, 2 * lead)) : 0;
      video.playbackRate = Number(rate.value) * (1 - correction);
      if (video.paused) video.play().catch(() => {});
    }
    frame = Math.min(frames - 1, Math.floor(time * fps + 1e-6));
  }

  function rest() {
    for (const video of videos) {
      video.pause();
      video.currentTime = (frame + 0.5) / fps;
    }
  }

  function draw() {
    if (playing) {
      follow();
      timeline.value = frame;
    }
    clock.textContent = `frame ${frame + 1} of ${frames}, ${(frame / fps).toFixed(2)} s`;
    button.textContent = playing ? "\u275a\u275a\u2002Pause" : "\u25b6\u2002Play";
    for (const line of playheads) {
      const from = Number(line.dataset.from);
      const to = Number(line.dataset.to);
      const x = from + ((to - from) * frame) / Math.max(1, frames - 1);
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
    }
    requestAnimationFrame(draw);
  }

  button.addEventListener("click", () => {
    playing = !playing;
    if (!playing) rest();
  });
  timeline.addEventListener("input", () => {
    playing = false;
    frame = Number(timeline.value);
    rest();
  });
  for (const video of videos) video.addEventListener("loadeddata", () => playing || rest());
  draw();
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
