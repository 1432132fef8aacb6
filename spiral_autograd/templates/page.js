"use strict";

// The run: the slider chooses a frame, which has the regions, the loss and the accuracy.
{
  const { rows, columns, frames } = JSON.parse(document.getElementById("frames").textContent);
  const canvas = document.getElementById("regions");
  const slider = document.getElementById("epoch");
  const now = document.getElementById("now");
  const cursor = document.getElementById("cursor");
  const play = document.getElementById("play");
  const small = new OffscreenCanvas(columns, rows);

  // Four cells to a byte, two bits each, the first in the lowest bits.
  const cells = (packed) => {
    const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
    return Uint8Array.from({ length: rows * columns }, (_, i) => (bytes[i >> 2] >> (2 * (i & 3))) & 3);
  };
  const colors = () => {
    const style = getComputedStyle(document.documentElement);
    return [0, 1, 2, 3].map((k) => {
      const hex = style.getPropertyValue(`--region-${k}`).trim();
      return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    });
  };
  const draw = () => {
    const frame = frames[slider.value];
    const palette = colors();
    const image = new ImageData(columns, rows);
    cells(frame.regions).forEach((k, i) => image.data.set([...palette[k], 255], 4 * i));
    small.getContext("2d").putImageData(image, 0, 0);
    const pen = canvas.getContext("2d");
    pen.imageSmoothingQuality = "high";
    pen.drawImage(small, 0, 0, canvas.width, canvas.height);
    cursor.setAttribute("transform", `translate(${frame.x} 0)`);
    cursor.querySelector("circle").setAttribute("cy", frame.y);
    now.textContent = frame.text;
    slider.setAttribute("aria-valuetext", frame.text);
  };

  let timer = 0;
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
    play.setAttribute("aria-pressed", "false");
  };
  const step = () => {
    slider.value = Number(slider.value) + 1;
    draw();
    if (slider.value === slider.max) stop();
  };
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (slider.value === slider.max) slider.value = 0;
    play.textContent = "Pause";
    play.setAttribute("aria-pressed", "true");
    timer = setInterval(step, 120);
  });
  slider.addEventListener("input", () => { stop(); draw(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
}

// The listings: a line, and those of the other listing that make the same numbers.
{
  const lines = [...document.querySelectorAll(".line[data-links]")];
  const linksOf = (line) => line.dataset.links.split(" ");
  const side = (line) => line.closest(".listings > div");
  const others = (line) => lines.filter((other) => side(other) !== side(line)
    && linksOf(other).some((link) => linksOf(line).includes(link)));
  const mark = (line) => {
    for (const other of lines) other.classList.remove("linked");
    if (!line) return;
    const found = others(line);
    for (const other of found) other.classList.add("linked");
    const box = found.length && found[0].closest(".scroll");
    if (box && box.scrollHeight > box.clientHeight) {  // within its box: the page stays where it is
      const top = found[0].offsetTop - box.offsetTop;
      if (top < box.scrollTop || top > box.scrollTop + box.clientHeight - 30) box.scrollTop = top - 60;
    }
  };
  for (const line of lines) {
    line.addEventListener("mouseenter", () => mark(line));
    line.addEventListener("mouseleave", () => mark(null));
    line.addEventListener("focus", () => mark(line));
    line.addEventListener("blur", () => mark(null));
    line.addEventListener("keydown", (event) => {
      const [first] = others(line);
      if (event.key === "Enter" && first) first.focus();
    });
  }
}
