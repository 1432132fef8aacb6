"use strict";

const SVG = "http://www.w3.org/2000/svg";  // a name, not an address: nothing is loaded

// An element of SVG, with its attributes and children.
const draw = (tag, attributes = {}, ...children) => {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};

const data = JSON.parse(document.getElementById("data").textContent);
const SHAPES = [  // of the points of each class: told apart without their colours
  (x, y) => draw("circle", { cx: x, cy: y, r: 4.6 }),
  (x, y) => draw("path", { d: `M${x - 4} ${y - 4}l8 8m0 -8l-8 8` }),
  (x, y) => draw("path", { d: `M${x} ${y - 5.4}l5 9h-10z` }),
];

// -------------------- the run: the slider chooses a frame --------------------
{
  const { frames, losses, points } = data;
  const [rows, columns] = frames[0].size;
  const lastEpoch = frames[frames.length - 1].epoch;
  const get = (id) => document.getElementById(id);
  const [plane, canvas, slider, now, play] = ["plane", "regions", "epoch", "now", "play"].map(get);

  // The points over the regions, whose cells reach from 0.1 beside the outermost points.
  const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]);
  const [left, bottom] = [Math.min(...xs) - 0.1, Math.min(...ys) - 0.1];
  const cell = (Math.max(Math.max(...xs) - left, Math.max(...ys) - bottom) + 0.1) / Math.max(rows, columns);
  const [width, height] = [4 * columns, 4 * rows];
  plane.style.aspectRatio = `${columns} / ${rows}`;
  canvas.width = width;
  canvas.height = height;
  const marks = points.map(([x, y, k]) => {
    const mark = SHAPES[k % 3](((x - left) / cell + 0.5) * 4, height - ((y - bottom) / cell + 0.5) * 4);
    mark.setAttribute("class", `point class-${k}`);
    return mark;
  });
  plane.append(draw("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, ...marks));
  for (const k of [...new Set(points.map((p) => p[2]))].sort()) {
    const mark = SHAPES[k % 3](8, 8);
    mark.setAttribute("class", `point class-${k}`);
    const key = document.createElement("span");
    key.className = "key";
    key.append(draw("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, mark), `class ${k}`);
    get("legend").append(key);
  }

  // The loss, with a cursor at the epoch.
  const [w, h] = [460, 300];
  const top = Math.max(...losses.map((l) => l[1]), ...frames.map((f) => f.loss)) * 1.05;
  const xOf = (epoch) => 44 + (w - 54) * epoch / lastEpoch;
  const yOf = (loss) => h - 40 - (h - 52) * loss / top;
  const text = (x, y, said, anchor = "middle") => draw("text", { x, y, "text-anchor": anchor }, said);
  const every = (most) => [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 1e4, 1e5].find((n) => most / n <= 6);
  const ticks = (most, step) => Array.from({ length: Math.floor(most / step + 1e-9) + 1 }, (_, i) => i * step);
  const step = every(top * 100) / 100 || top;
  const cursor = draw("g", { class: "cursor", id: "cursor" }, draw("line", { y1: 12, y2: h - 40 }), draw("circle", { r: 5 }));
  get("loss").append(draw("svg", { viewBox: `0 0 ${w} ${h}`, class: "chart", role: "img", "aria-label": "The loss, epoch by epoch" },
    ...ticks(top, step).flatMap((y) => [
      draw("line", { class: "grid", x1: 44, x2: w - 10, y1: yOf(y), y2: yOf(y) }),
      text(36, yOf(y) + 4, String(Math.round(y * 100) / 100), "end")]),
    ...ticks(lastEpoch, every(lastEpoch)).map((x) => text(xOf(x), h - 20, String(x))),
    text((w + 44) / 2, h - 2, "epoch"),
    draw("polyline", { class: "curve", points: losses.map(([e, l]) => `${xOf(e)},${yOf(l)}`).join(" ") }),
    cursor));

  // Four cells to a byte, two bits each, the first in the lowest bits.
  const cells = (packed) => {
    const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
    return Uint8Array.from({ length: rows * columns }, (_, i) => (bytes[i >> 2] >> (2 * (i & 3))) & 3);
  };
  const palette = () => {
    const style = getComputedStyle(document.documentElement);
    return [0, 1, 2, 3].map((k) => {
      const hex = style.getPropertyValue(`--region-${k}`).trim();
      return [...[1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)), 255];
    });
  };
  const small = document.createElement("canvas");
  [small.width, small.height] = [columns, rows];
  const show = () => {
    const frame = frames[slider.value];
    const colors = palette();
    const image = new ImageData(columns, rows);
    cells(frame.regions).forEach((k, i) => image.data.set(colors[k], 4 * i));
    small.getContext("2d").putImageData(image, 0, 0);
    const pen = canvas.getContext("2d");
    pen.imageSmoothingQuality = "high";
    pen.drawImage(small, 0, 0, width, height);
    cursor.setAttribute("transform", `translate(${xOf(frame.epoch)} 0)`);
    cursor.lastChild.setAttribute("cy", yOf(frame.loss));
    const epoch = Math.round(frame.epoch * 10) / 10;
    const said = `epoch ${epoch} of ${lastEpoch}: loss ${frame.loss.toFixed(2)}, accuracy ${(100 * frame.accuracy).toFixed(0)} %`;
    now.textContent = said;
    slider.setAttribute("aria-valuetext", said);
    canvas.setAttribute("aria-label", `The class that is predicted at each point of the plane, ${said}`);
  };

  let timer = 0;
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
    play.setAttribute("aria-pressed", "false");
  };
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (slider.value === slider.max) slider.value = 0;
    play.textContent = "Pause";
    play.setAttribute("aria-pressed", "true");
    timer = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      show();
      if (slider.value === slider.max) stop();
    }, 120);
    show();
  });
  slider.addEventListener("input", () => { stop(); show(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  canvas.setAttribute("role", "img");
  slider.max = frames.length - 1;
  slider.value = slider.max;
  show();
}

// -------------------- the listings: lines that make the same numbers --------------------
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

// -------------------- the graph: a column for each step, the operations in one row --------------------
{
  const [BOX, HIGH, APART, DOWN] = [104, 36, 226, 78];
  const at = {}, filled = {};
  const inLine = (kind) => kind === "operation" || kind === "loss";
  for (const [key, label, kind, column] of [...data.nodes].sort((a, b) => inLine(b[2]) - inLine(a[2]))) {
    const row = filled[column] = (filled[column] ?? -1) + 1;
    at[key] = { label, kind, x: 4 + column * APART, y: 24 + row * DOWN };
  }
  const all = Object.values(at);
  const width = Math.max(...all.map((n) => n.x)) + BOX + 4;
  const height = Math.max(...all.map((n) => n.y)) + HIGH + 14;
  const tip = (name) => draw("marker", { id: name, class: name, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, orient: "auto" },
    draw("path", { d: "M0 0L8 4L0 8z" }));
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, width, class: "graph", role: "img", "aria-labelledby": "graph-title" },
    draw("defs", {}, tip("forward-tip"), tip("back-tip")));
  for (const [start, end, name, shape, gradient] of data.edges) {
    const [from, to] = [at[start], at[end]];
    const [x1, y1, x2] = [from.x + BOX, from.y + HIGH / 2, to.x];
    const row = Math.round((from.y - to.y) / DOWN);  // what stands lower goes up further right, and ends lower
    const y2 = to.y + HIGH / 2 + (row ? 3 + 6 * row : 0);
    const up = x2 - 44 + 14 * row;
    const there = row ? `H${up}V${y2}H${x2}` : `H${x2}`;
    const back = row ? `H${up}V${y1}H${x1 - 3}` : `H${x1 - 3}`;
    const path = (d, by, kind) => svg.append(draw("path", { d, class: kind, transform: `translate(${by} ${by})`, "marker-end": `url(#${kind}-tip)` }));
    path(`M${x1} ${y1}${there}`, -3, "forward");
    if (gradient) path(`M${x2} ${y2}${back}`, 3, "back");
    const place = (x1 + (row ? up : x2)) / 2;
    svg.append(draw("text", { x: place, y: y1 - 9 }, `${name} ${shape === "()" ? "" : shape}`));
    if (gradient) svg.append(draw("text", { x: place, y: y1 + 19, class: "back-name" }, gradient));
  }
  for (const { label, kind, x, y } of all) {
    svg.append(draw("g", { class: kind },
      draw("rect", { x, y, width: BOX, height: HIGH, rx: kind === "operation" ? 4 : HIGH / 2 }),
      draw("text", { x: x + BOX / 2, y: y + HIGH / 2 + 4 }, label)));
  }
  document.getElementById("graph").append(svg);
}
