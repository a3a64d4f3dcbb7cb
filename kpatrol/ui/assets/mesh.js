"use strict";
/* The heat map: a mesh of up to some thousand by some thousand on a canvas of the window's size.
   All cells are painted once, a pixel each, into a picture of their own; scrolling and zooming copy a part of it. */

const CELL_BYTES = 24;
const NOT_MEASURED = 5;
const LABEL_FROM_PX = 11, TEXT_FROM_PX = 34, ZOOMS = [1, 2, 3, 4, 6, 8, 12, 16, 22, 30, 44, 60];

const MEASURES = {
  loss: {
    value: c => (c.sent ? c.lost / c.sent : null),
    steps: [0, 0.001, 0.01, 0.05],
    names: ["none lost", "up to 0.1 %", "up to 1 %", "up to 5 %", "more", "not measured"],
    text: v => percent(v),
  },
  failed: {
    value: c => (c.n ? 1 - c.ok / c.n : null),
    steps: [0, 0.001, 0.01, 0.1],
    names: ["none failed", "up to 0.1 %", "up to 1 %", "up to 10 %", "more", "not measured"],
    text: v => percent(v),
  },
  p99: {
    value: c => (c.ok ? c.p99 : null),
    steps: [1000, 5000, 20000, 100000],
    names: ["up to 1 ms", "up to 5 ms", "up to 20 ms", "up to 100 ms", "more", "no reply"],
    text: v => delay(v),
  },
};

function percent(rate) {
  if (rate === null || rate === undefined) return "–";
  const p = rate * 100;
  if (p === 0 || p === 100) return p + " %";
  if (p > 99) return p.toFixed(Math.max(1, Math.min(4, Math.ceil(-Math.log10(100 - p))))) + " %";
  return Number(p.toPrecision(p < 10 ? 2 : 3)) + " %";
}

function delay(us) {
  if (us === null || us === undefined) return "–";
  if (us < 1000) return us.toFixed(0) + " µs";
  return us < 1e6 ? (us / 1000).toFixed(1) + " ms" : (us / 1e6).toFixed(2) + " s";
}

function step(measure, cell) {
  const value = measure.value(cell);
  if (value === null) return NOT_MEASURED;
  const found = measure.steps.findIndex(limit => value <= limit);
  return found < 0 ? measure.steps.length : found;
}

/* A document of /api/mesh to rows, columns and cell(row, column). */
function unpack(mesh) {
  const text = atob(mesh.cells);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const view = new DataView(bytes.buffer);
  const at = new Int32Array(mesh.rows.length * mesh.columns.length).fill(-1);
  const count = bytes.length / CELL_BYTES;
  for (let i = 0; i < count; i++) {
    const o = i * CELL_BYTES;
    at[view.getUint16(o, true) * mesh.columns.length + view.getUint16(o + 2, true)] = o;
  }
  const empty = { n: 0, ok: 0, sent: 0, lost: 0, p99: 0 };
  const cell = (row, column) => {
    const o = at[row * mesh.columns.length + column];
    return o < 0 ? empty : {
      n: view.getUint32(o + 4, true), ok: view.getUint32(o + 8, true), sent: view.getUint32(o + 12, true),
      lost: view.getUint32(o + 16, true), p99: view.getFloat32(o + 20, true),
    };
  };
  return { rows: mesh.rows, columns: mesh.columns, cell, count };
}

class HeatMap {
  constructor({ scroller, space, canvas, onMove, onOpen }) {
    Object.assign(this, { scroller, space, canvas, onMove, onOpen, mesh: null, px: 16, chosen: null, measure: "loss" });
    this.picture = document.createElement("canvas");
    this.pending = false;
    scroller.addEventListener("scroll", () => this.redraw(), { passive: true });
    new ResizeObserver(() => this.redraw()).observe(scroller);
    canvas.addEventListener("mousemove", event => this.hover(this.under(event)));
    canvas.addEventListener("click", event => { const at = this.under(event); if (at) { this.choose(at); this.onOpen(at); } });
    scroller.addEventListener("keydown", event => this.key(event));
  }

  show(mesh) {
    const same = this.mesh && this.mesh.rows.length === mesh.rows.length && this.mesh.columns.length === mesh.columns.length;
    this.mesh = mesh;
    this.paint();
    if (!same) { this.chosen = null; this.fit(); } else this.redraw();
    if (this.chosen) this.hover(this.chosen);
  }

  colour(name) { this.measure = name; if (this.mesh) { this.paint(); this.redraw(); } }

  margins() {
    const labels = this.px >= LABEL_FROM_PX;
    const widest = names => Math.max(0, ...names.map(n => n.name.length));
    return labels
      ? { left: Math.min(160, 12 + 6.6 * widest(this.mesh.rows)), top: Math.min(120, 12 + 6.6 * widest(this.mesh.columns)) }
      : { left: 56, top: 18 };
  }

  fit() {
    const room = Math.min((this.scroller.clientWidth - 90) / this.mesh.columns.length, (window.innerHeight * 0.7 - 110) / this.mesh.rows.length);
    this.px = [...ZOOMS].reverse().find(z => z <= room) || 1;
    this.px = Math.min(this.px, 44);
    this.redraw();
  }

  zoom(by) {
    const next = ZOOMS[ZOOMS.indexOf(this.px) + by];
    if (next) { this.px = next; this.redraw(); }
  }

  paint() {
    const { rows, columns, cell } = this.mesh, measure = MEASURES[this.measure];
    const style = getComputedStyle(document.documentElement);
    const colours = ["--s0", "--s1", "--s2", "--s3", "--s4", "--none"].map(n => rgb(style.getPropertyValue(n).trim()));
    this.picture.width = Math.max(1, columns.length);
    this.picture.height = Math.max(1, rows.length);
    const context = this.picture.getContext("2d");
    const image = context.createImageData(this.picture.width, this.picture.height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let r = 0; r < rows.length; r++)
      for (let c = 0; c < columns.length; c++) pixels[r * columns.length + c] = colours[step(measure, cell(r, c))];
    context.putImageData(image, 0, 0);
  }

  redraw() {
    if (this.pending || !this.mesh) return;
    this.pending = true;
    requestAnimationFrame(() => { this.pending = false; this.draw(); });
  }

  draw() {
    const { rows, columns } = this.mesh, { left, top } = this.margins(), px = this.px, ratio = window.devicePixelRatio || 1;
    this.scroller.style.height = `min(70vh, ${Math.max(120, top + rows.length * px + 20)}px)`;
    const width = this.scroller.clientWidth, height = this.scroller.clientHeight;
    this.space.style.width = `${left + columns.length * px}px`;
    this.space.style.height = `${Math.max(height, top + rows.length * px)}px`;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio); this.canvas.height = Math.round(height * ratio);
      this.canvas.style.width = `${width}px`; this.canvas.style.height = `${height}px`;
    }
    const x0 = this.scroller.scrollLeft, y0 = this.scroller.scrollTop;
    const c0 = Math.floor(x0 / px), r0 = Math.floor(y0 / px);
    const cs = Math.min(columns.length - c0, Math.ceil((width - left) / px) + 2), rs = Math.min(rows.length - r0, Math.ceil((height - top) / px) + 2);
    const style = getComputedStyle(document.documentElement), ink = style.getPropertyValue("--ink"), dim = style.getPropertyValue("--dim");
    const g = this.canvas.getContext("2d");
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.fillStyle = style.getPropertyValue("--panel"); g.fillRect(0, 0, width, height);
    g.save();
    g.beginPath(); g.rect(left, top, width - left, height - top); g.clip();
    g.imageSmoothingEnabled = false;
    if (cs > 0 && rs > 0) g.drawImage(this.picture, c0, r0, cs, rs, left + c0 * px - x0, top + r0 * px - y0, cs * px, rs * px);
    const x = c => left + c * px - x0, y = r => top + r * px - y0;
    g.strokeStyle = style.getPropertyValue("--panel"); g.lineWidth = 1;
    if (px >= 6) {
      g.beginPath();
      for (let c = c0; c <= c0 + cs; c++) { g.moveTo(x(c) + .5, top); g.lineTo(x(c) + .5, y(r0 + rs)); }
      for (let r = r0; r <= r0 + rs; r++) { g.moveTo(left, y(r) + .5); g.lineTo(x(c0 + cs), y(r) + .5); }
      g.stroke();
    }
    if (px >= TEXT_FROM_PX) {
      g.fillStyle = ink; g.font = "11px system-ui, sans-serif"; g.textAlign = "center"; g.textBaseline = "middle";
      const measure = MEASURES[this.measure];
      for (let r = r0; r < r0 + rs; r++)
        for (let c = c0; c < c0 + cs; c++) {
          const value = measure.value(this.mesh.cell(r, c));
          if (value !== null) g.fillText(value === 0 ? "·" : measure.text(value).replace(" %", "%"), x(c) + px / 2, y(r) + px / 2);
        }
    }
    g.strokeStyle = dim;
    g.beginPath();
    for (let c = Math.max(1, c0); c <= c0 + cs && c < columns.length; c++) if (columns[c].zone !== columns[c - 1].zone) { g.moveTo(x(c), top); g.lineTo(x(c), y(r0 + rs)); }
    for (let r = Math.max(1, r0); r <= r0 + rs && r < rows.length; r++) if (rows[r].zone !== rows[r - 1].zone) { g.moveTo(left, y(r)); g.lineTo(x(c0 + cs), y(r)); }
    g.stroke();
    if (this.chosen) {
      g.strokeStyle = style.getPropertyValue("--focus"); g.lineWidth = 2;
      g.strokeRect(x(this.chosen.column) - 1, y(this.chosen.row) - 1, px + 2, px + 2);
    }
    g.restore();
    this.labels(g, { left, top, x, y, c0, r0, cs, rs, ink, dim });
  }

  labels(g, { left, top, x, y, c0, r0, cs, rs, ink, dim }) {
    const { rows, columns } = this.mesh, px = this.px, named = px >= LABEL_FROM_PX;
    g.font = "11px system-ui, sans-serif"; g.textBaseline = "middle";
    const texts = (members, from, count) => {
      const told = [];
      for (let i = from; i < Math.min(members.length, from + count); i++)
        if (named) told.push([i, members[i].name]);
        else if (i === from || members[i].zone !== members[i - 1].zone) told.push([i, members[i].zone || members[i].name]);
      return told;
    };
    g.save(); g.beginPath(); g.rect(0, top, left, 1e5); g.clip(); g.textAlign = "right";
    for (const [r, text] of texts(rows, r0, rs)) {
      g.fillStyle = this.chosen && this.chosen.row === r ? ink : dim;
      g.fillText(text, left - 5, Math.max(top + 6, y(r) + px / 2));
    }
    g.restore(); g.save(); g.beginPath(); g.rect(left, 0, 1e5, top); g.clip(); g.textAlign = "left";
    for (const [c, text] of texts(columns, c0, cs)) {
      g.fillStyle = this.chosen && this.chosen.column === c ? ink : dim;
      if (!named) { g.fillText(text, Math.max(left, x(c)), top / 2); continue; }
      g.save(); g.translate(x(c) + px / 2, top - 5); g.rotate(-Math.PI / 2); g.fillText(text, 0, 0); g.restore();
    }
    g.restore();
  }

  under(event) {
    if (!this.mesh) return null;
    const box = this.canvas.getBoundingClientRect(), { left, top } = this.margins();
    const column = Math.floor((event.clientX - box.left - left + this.scroller.scrollLeft) / this.px);
    const row = Math.floor((event.clientY - box.top - top + this.scroller.scrollTop) / this.px);
    const inside = event.clientX - box.left >= left && event.clientY - box.top >= top;
    return inside && row >= 0 && column >= 0 && row < this.mesh.rows.length && column < this.mesh.columns.length ? { row, column } : null;
  }

  hover(at) { if (at) this.onMove(at, this.mesh.cell(at.row, at.column)); }

  choose(at) { this.chosen = at; this.hover(at); this.redraw(); }

  key(event) {
    if (!this.mesh || !this.mesh.rows.length) return;
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (event.key in moves) {
      event.preventDefault();
      const [dr, dc] = moves[event.key], from = this.chosen || { row: 0, column: -1 };
      const clamp = (v, n) => Math.max(0, Math.min(n - 1, v));
      this.choose({ row: clamp(from.row + dr, this.mesh.rows.length), column: clamp(from.column + dc, this.mesh.columns.length) });
      this.reveal();
    } else if (event.key === "Enter" && this.chosen) this.onOpen(this.chosen);
    else if (event.key === "+") this.zoom(1);
    else if (event.key === "-") this.zoom(-1);
  }

  reveal() {
    const { left, top } = this.margins(), s = this.scroller, px = this.px, { row, column } = this.chosen;
    s.scrollLeft = Math.max(Math.min(s.scrollLeft, column * px), (column + 1) * px - (s.clientWidth - left));
    s.scrollTop = Math.max(Math.min(s.scrollTop, row * px), (row + 1) * px - (s.clientHeight - top));
  }
}

function rgb(hex) {
  const full = hex.length === 4 ? "#" + [...hex.slice(1)].map(c => c + c).join("") : hex;
  const n = parseInt(full.slice(1), 16);
  return ((255 << 24) | ((n & 255) << 16) | (((n >> 8) & 255) << 8) | (n >> 16)) >>> 0;
}
