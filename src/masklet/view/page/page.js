"use strict";
// The page of `masklet view` and of `masklet report`. Frames and masks come by window, from the server or from the page
// itself; what is drawn is always the mask of the very frame that is shown. Names are only ever set as text.

const WINDOW = 32; // frames whose masks come at once
const AHEAD = 24; // frames that are fetched before they are shown
const MOST_PIXELS = 60e6; // of the frames that are kept
const MOST_ROWS = 300; // objects in the list at once
const $ = (id) => document.getElementById(id);

// ---- run lengths: COCO's compressed form, column by column, the first run outside

/** The runs in COCO's compressed form. */
function decodeCounts(text) {
  const runs = [];
  for (let p = 0; p < text.length; ) {
    let value = 0, place = 0, more = true;
    while (more) {
      const digit = text.charCodeAt(p++) - 48;
      value |= (digit & 31) << (5 * place++);
      more = (digit & 32) !== 0;
      if (!more && digit & 16) value |= -1 << (5 * place);
    }
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  return runs;
}

/** COCO's compressed form of a mask, an array of 0 and 1, row by row. */
function encodeMask(mask, width, height) {
  const runs = [];
  let last = 0, count = 0;
  for (let x = 0; x < width; x++) {
    for (let y = 0, p = x; y < height; y++, p += width) {
      if (mask[p] !== last) { runs.push(count); count = 0; last = mask[p]; }
      count++;
    }
  }
  runs.push(count);
  let text = "";
  runs.forEach((run, n) => {
    let value = n > 2 ? run - runs[n - 2] : run, more = true;
    while (more) {
      let digit = value & 31;
      value >>= 5;
      more = digit & 16 ? value !== -1 : value !== 0;
      text += String.fromCharCode((more ? digit | 32 : digit) + 48);
    }
  });
  return text;
}

/** Calls `fill(x, y0, y1)` for every stretch of a column that a mask of this height has. */
function eachColumn(runs, height, fill) {
  let at = 0;
  for (let n = 0; n < runs.length; n++) {
    const end = at + runs[n];
    if (n & 1) {
      for (let p = at; p < end; ) {
        const x = Math.floor(p / height), y = p - x * height;
        const stop = Math.min(height, y + end - p);
        fill(x, y, stop);
        p += stop - y;
      }
    }
    at = end;
  }
}

// ---- where everything comes from

/** A problem to be told to the user. */
class Problem extends Error {}

/** The server that has sent the page. */
class ServerSource {
  constructor() { this.video = 0; this.readOnly = false; this.isLost = false; }

  async list() { return this.fetchJson("/videos"); }

  async fetchJson(path, options) {
    let response;
    try {
      response = await fetch(path, options);
    } catch {
      this.isLost = true;
      showBanner("The server does not answer. Start masklet view again and open the address that it prints.");
      throw new Problem("the server does not answer");
    }
    if (response.status === 403) throw new Problem(await response.text());
    const told = await response.json();
    if (this.isLost) { this.isLost = false; hideBanner(); }
    if (!response.ok) throw new Problem(told.error);
    return told;
  }

  call(verb, given = {}, video = this.video) {
    return this.fetchJson(`/videos/${video}/${verb}`, {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(given),
    });
  }

  async loadImage(frame, side) {
    let response;
    try {
      response = await fetch(`/videos/${this.video}/frames/${frame}.jpg?side=${side}`);
    } catch {
      await this.fetchJson("/videos"); // which says that it has stopped
    }
    if (!response || !response.ok) throw new Problem(`frame ${frame} cannot be read`);
    return createImageBitmap(await response.blob());
  }

  async masks(start, stop) { return this.call("masks", { start, stop }); }
  async otherMasks(other, start, stop) { return this.call("other_masks", { other, start, stop }); }
  async timeline(start, stop, bins) { return this.call("timeline", { start, stop, bins }); }
}

/** A report: everything is in the page, or in files beside it. */
class ReportSource {
  constructor(data) {
    this.data = data; this.video = 0; this.readOnly = true;
    this.waiting = new Map(); // start of a window: who waits for it
    window.giveMasks = (start, frames) => { this.waiting.get(start)?.(frames); };
  }

  async list() { return [{ name: this.data.describe.name }]; }

  async call(verb) {
    if (verb in this.data) return this.data[verb];
    throw new Problem("a report cannot be changed; open the result with masklet view");
  }

  async loadImage(frame) {
    const image = new Image();
    image.src = this.data.images ? `data:image/jpeg;base64,${this.data.images[frame]}` : `frames/${frame}.jpg`;
    await image.decode();
    return image;
  }

  async masks(start, stop) {
    if (this.data.masks) return { revision: 0, start, frames: this.data.masks.slice(start, stop) };
    const frames = await new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = `masks/${start}.js`;
      script.onerror = () => reject(new Problem(`masks/${start}.js is missing`));
      this.waiting.set(start, resolve);
      document.head.append(script);
    });
    this.waiting.delete(start);
    return { revision: 0, start, frames };
  }

  /** Bins of the timeline, of the frames that the report has one by one. */
  async timeline(start, stop, bins) {
    const objects = {}, count = Math.min(bins, stop - start);
    for (const [id, whole] of Object.entries(this.data.timeline.objects)) {
      let sources = "", scores = "", shares = "";
      for (let n = 0; n < count; n++) {
        const a = start + Math.round(((stop - start) * n) / count), b = start + Math.round(((stop - start) * (n + 1)) / count);
        const bin = whole.sources.slice(a, b), seen = bin.replaceAll(".", "");
        const most = [..."dcfb"].reduce((best, one) => (bin.split(one).length > bin.split(best).length ? one : best), "d");
        sources += !seen ? "." : bin.includes("c") ? "c" : most;
        let low = 9;
        for (let t = a; t < b; t++) if (whole.sources[t] !== ".") low = Math.min(low, Number(whole.scores[t]));
        scores += seen ? low : 0;
        shares += Math.ceil((9 * seen.length) / (b - a));
      }
      objects[id] = { sources, scores, shares };
    }
    return { start, stop, bins: count, done: 1, objects };
  }
}

// ---- the state

const state = {
  source: null, video: null, // what `describe` says
  frame: 0, shown: -1, playing: false, speed: 1, clock: 0, clockFrame: 0,
  chosen: null, hidden: new Set(), solo: null, colours: new Map(),
  tool: "select", creating: false, points: [], box: null, promptAt: "",
  opacity: 0.4, labels: true, zoom: 0, middle: null, pointer: null, crosshair: null,
  range: [0, 1], span: [0, 1], timeline: null, suspicious: [], other: "", comparison: null,
  size: 12, stroke: null, busy: 0, times: [], jobTimer: 0,
};
const images = new Map(), masks = new Map(), otherMasks = new Map();
const overlay = document.createElement("canvas");
let hits = null, overlayKey = "", boxes = [];

const objects = () => state.video.objects;
const findObject = (id) => objects().find((one) => one.id === id);
const titleOf = (one) => `${one.name} ${one.id}`;
const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

/** The colour of an object, red, green and blue. */
function colourOf(id) {
  const palette = state.video.palette, n = palette.length;
  return state.colours.get(id) ?? palette[(((id - 1) % n) + n) % n];
}

const cssColour = ([r, g, b], alpha = 1) => `rgb(${r} ${g} ${b} / ${alpha})`;
const isLight = ([r, g, b]) => 0.299 * r + 0.587 * g + 0.114 * b > 110;
const isVisible = (id) => (state.solo === null ? !state.hidden.has(id) : state.solo === id);

// ---- what is told

function showBanner(text) { $("banner").textContent = text; $("banner").hidden = false; }
function hideBanner() { $("banner").hidden = true; }

let bannerTimer = 0;
/** Says something for a while. */
function tell(text) {
  showBanner(text);
  clearTimeout(bannerTimer);
  bannerTimer = setTimeout(() => { if (!state.source.isLost) hideBanner(); }, 12000);
}

/** Does something whose problems the user must know. */
async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof Problem)) console.error(error);
    if (!state.source.isLost) tell(error.message);
    return undefined;
  }
}

/** The same while a sign says that it takes time. */
async function attemptSlowly(text, work) {
  state.busy++;
  const timer = setTimeout(() => { $("waiting").textContent = text; $("waiting").hidden = false; }, 400);
  const done = await attempt(work);
  clearTimeout(timer);
  if (--state.busy === 0) $("waiting").hidden = true;
  return done;
}

// ---- frames and masks, by number

/** The pixels across that frames are asked for: what the stage shows, in the steps of the server. */
function wantedSide() {
  const { width, height } = state.video, canvas = $("canvas");
  const scale = Math.max(1, state.zoom || 1);
  const shown = Math.max(canvas.width, canvas.height) * scale;
  return [480, 960, 1920, 3840].find((side) => side >= Math.min(shown, Math.max(width, height))) ?? 3840;
}

/** The image of a frame; null where the video is not there. */
function loadImage(frame) {
  if (!state.video.has_frames) return Promise.resolve(null);
  const side = wantedSide(), key = `${frame}@${side}`;
  if (!images.has(key)) {
    const entry = { ready: null, failed: false };
    entry.promise = state.source.loadImage(frame, side).then((image) => (entry.ready = image), (error) => { images.delete(key); throw error; });
    images.set(key, entry);
    const each = Math.min(side, state.video.width) * Math.min(side, state.video.height);
    while (images.size > Math.max(AHEAD + 8, MOST_PIXELS / each)) {
      const [oldest, old] = images.entries().next().value;
      images.delete(oldest);
      if (old.ready?.close && old.ready !== current.image) old.ready.close();
    }
  }
  return images.get(key).promise;
}

/** The masks of a frame, from their window. */
async function loadMasks(frame, cache = masks, fetchWindow = (a, b) => state.source.masks(a, b)) {
  const start = frame - (frame % WINDOW);
  if (!cache.has(start)) {
    const promise = fetchWindow(start, Math.min(start + WINDOW, state.video.length)).then(
      (told) => told.frames.map((rows) => rows.map(([id, counts, source, score, presence]) => ({ id, counts, source, score, presence }))),
      (error) => { cache.delete(start); throw error; });
    promise.catch(() => {});
    cache.set(start, promise);
    if (cache.size > 24) cache.delete(cache.keys().next().value);
  }
  return (await cache.get(start))[frame - start] ?? [];
}

const loadOtherMasks = (frame) => (state.other
  ? loadMasks(frame, otherMasks, (a, b) => state.source.otherMasks(state.other, a, b)) : Promise.resolve([]));

const current = { frame: -1, image: null, masks: [], others: [] };
let loading = false;

/** Shows `state.frame`, or whichever is wanted by the time the one before is there. */
async function showFrame() {
  updateTransport();
  if (loading) return;
  loading = true;
  while (state.video && (state.shown !== state.frame || state.stale)) {
    const frame = state.frame, video = state.source.video;
    state.stale = false;
    const got = await attempt(() => Promise.all([loadImage(frame), loadMasks(frame), loadOtherMasks(frame)]));
    if (video !== state.source.video) continue;
    if (!got) break;
    Object.assign(current, { frame, image: got[0], masks: got[1], others: got[2] });
    state.shown = frame;
    overlayKey = "";
    draw();
    updateChosen();
    document.body.dataset.shown = String(frame);
  }
  loading = false;
}

/** The masks may be others: what is kept is thrown away, and the frame is drawn again. */
function forgetMasks() {
  masks.clear();
  state.stale = true;
  showFrame();
}

function goTo(frame) {
  const next = clamp(Math.round(frame) || 0, 0, state.video.length - 1);
  if (next !== state.frame) clearPrompt();
  state.frame = next;
  if (state.playing) startClock();
  keepPlayheadInView();
  showFrame();
}

// ---- playing

const timeOf = (frame) => (state.times.length ? state.times[frame] ?? 0 : frame / state.video.rate);

function startClock() { state.clock = performance.now(); state.clockFrame = state.frame; }

function togglePlay() {
  if (!state.playing && state.frame >= state.video.length - 1) goTo(0);
  state.playing = !state.playing;
  startClock();
  updateTransport();
  if (state.playing) requestAnimationFrame(playOn);
}

/** The frame that is due, as far as it is loaded; a frame that is late holds the clock up. */
function playOn() {
  if (!state.playing) return;
  const since = ((performance.now() - state.clock) / 1000) * state.speed + timeOf(state.clockFrame);
  let due = state.frame;
  while (due + 1 < state.video.length && timeOf(due + 1) <= since) due++;
  for (let n = 1; n <= AHEAD; n++) {
    const next = state.frame + n;
    if (next < state.video.length) { loadImage(next).catch(() => {}); if (next % WINDOW === 0 || n === 1) loadMasks(next).catch(() => {}); }
  }
  if (due > state.frame) {
    if (loading) startClock();
    else { clearPrompt(); state.frame = due; keepPlayheadInView(); showFrame(); }
  }
  if (state.frame >= state.video.length - 1) { state.playing = false; updateTransport(); return; }
  requestAnimationFrame(playOn);
}

// ---- drawing the stage

/** How the frame lies on the canvas: scale in each direction, and where its corner is. */
function layout() {
  const canvas = $("canvas"), { width, height, pixel_aspect: aspect } = state.video;
  const fit = Math.min(canvas.width / (width * aspect), canvas.height / height) || 1;
  const sy = fit * (state.zoom || 1), sx = sy * aspect;
  const [mx, my] = state.middle && state.zoom ? state.middle : [width / 2, height / 2];
  return { sx, sy, left: canvas.width / 2 - mx * sx, top: canvas.height / 2 - my * sy };
}

/** Where on the frame the pointer is, in its pixels. */
function toFrame(event) {
  const box = $("canvas").getBoundingClientRect(), ratio = $("canvas").width / box.width, at = layout();
  return [((event.clientX - box.left) * ratio - at.left) / at.sx, ((event.clientY - box.top) * ratio - at.top) / at.sy];
}

/** The masks as an image: fills, outlines, and whose pixel is whose. */
function paintOverlay() {
  const { width, height } = state.video, step = Math.max(1, Math.ceil(Math.max(width, height) / 1920));
  const w = Math.ceil(width / step), h = Math.ceil(height / step);
  overlay.width = w; overlay.height = h;
  const image = overlay.getContext("2d").createImageData(w, h), pixels = new Uint32Array(image.data.buffer);
  hits = { step, w, h, ids: new Array(1).fill(null), at: new Uint16Array(w * h) };
  const drawn = current.masks.filter((one) => isVisible(one.id)).map((one) => rasterize(one, step, w, h)).filter(Boolean);
  boxes = drawn.map((one) => ({ id: one.id, x: one.x0 * step, y: one.y0 * step }));
  drawn.sort((a, b) => b.area - a.area);
  for (const one of drawn) paintMask(one, pixels, w, h, false);
  for (const one of current.others) {
    const shape = rasterize(one, step, w, h);
    if (shape) paintMask({ ...shape, id: findPair(one.id) ?? -1 }, pixels, w, h, true);
  }
  overlay.getContext("2d").putImageData(image, 0, 0);
}

/** A mask in the overlay's pixels, within its box. */
function rasterize(one, step, w, h) {
  const height = state.video.height, runs = (one.runs ??= decodeCounts(one.counts)), columns = [];
  let x0 = w, x1 = 0, y0 = h, y1 = 0;
  eachColumn(runs, height, (x, from, to) => {
    if (x % step) return;
    const a = Math.ceil(from / step), b = Math.ceil(to / step), c = x / step;
    if (a >= b) return;
    columns.push(c, a, b);
    x0 = Math.min(x0, c); x1 = Math.max(x1, c + 1); y0 = Math.min(y0, a); y1 = Math.max(y1, b);
  });
  if (!columns.length) return null;
  const bw = x1 - x0 + 2, bh = y1 - y0 + 2, inside = new Uint8Array(bw * bh); // with a margin
  let area = 0;
  for (let n = 0; n < columns.length; n += 3) {
    for (let y = columns[n + 1]; y < columns[n + 2]; y++) inside[(y - y0 + 1) * bw + columns[n] - x0 + 1] = 1;
    area += columns[n + 2] - columns[n + 1];
  }
  return { id: one.id, source: one.source, inside, bw, bh, x0, y0, area };
}

function paintMask(one, pixels, w, h, outlineOnly) {
  const [r, g, b] = one.id === -1 ? [255, 255, 255] : colourOf(one.id), { inside, bw, bh } = one;
  const solid = ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
  const alpha = Math.round(255 * state.opacity), fill = ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0;
  const chosen = one.id === state.chosen && !outlineOnly, halo = 0xffffffff;
  const number = outlineOnly ? 0 : hits.ids.push(one.id) - 1;
  for (let y = 0; y < bh; y++) {
    for (let x = 0; x < bw; x++) {
      const p = y * bw + x, px = one.x0 + x - 1, py = one.y0 + y - 1;
      if (px < 0 || py < 0 || px >= w || py >= h) continue;
      const q = py * w + px;
      const near = (x > 0 && inside[p - 1]) + (x < bw - 1 && inside[p + 1]) + (y > 0 && inside[p - bw]) + (y < bh - 1 && inside[p + bw]);
      if (!inside[p]) {
        if (chosen && near) pixels[q] = halo;
        continue;
      }
      if (number) hits.at[q] = number;
      const edge = near < 4, dash = ((px + py) >> 2) & 1;
      if (outlineOnly) {
        if (edge) pixels[q] = dash ? 0xff000000 : 0xffffffff;
      } else if (edge && !(one.source === "backward" && dash)) pixels[q] = solid;
      else pixels[q] = fill;
    }
  }
}

/** The object that has the pixel; null where none has. */
function hitTest([x, y]) {
  if (!hits || x < 0 || y < 0) return null;
  const px = Math.floor(x / hits.step), py = Math.floor(y / hits.step);
  return px < hits.w && py < hits.h ? hits.ids[hits.at[py * hits.w + px]] : null;
}

let drawQueued = false;
function draw() {
  if (drawQueued) return;
  drawQueued = true;
  requestAnimationFrame(() => { drawQueued = false; if (state.video && current.frame >= 0) drawNow(); });
}

function drawNow() {
  const canvas = $("canvas"), context = canvas.getContext("2d"), at = layout(), { width, height } = state.video;
  const key = [current.frame, state.opacity, state.chosen, state.solo, [...state.hidden], [...state.colours], state.video.revision, state.other].join("|");
  if (key !== overlayKey) { paintOverlay(); overlayKey = key; }
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingEnabled = at.sx < 4;
  if (current.image) context.drawImage(current.image, at.left, at.top, width * at.sx, height * at.sy);
  else { context.fillStyle = "#3a4048"; context.fillRect(at.left, at.top, width * at.sx, height * at.sy); }
  context.drawImage(overlay, 0, 0, width / hits.step, height / hits.step, at.left, at.top, width * at.sx, height * at.sy);
  if (state.stroke) context.drawImage(state.stroke.canvas, at.left, at.top, width * at.sx, height * at.sy);
  if (state.labels) drawLabels(context, at);
  drawMarks(context, at);
}

function drawLabels(context, at) {
  const ratio = devicePixelRatio || 1, size = 12 * ratio, taken = [];
  context.font = `500 ${size}px system-ui, "Liberation Sans", sans-serif`;
  context.textBaseline = "middle";
  for (const box of boxes) {
    const one = findObject(box.id);
    if (!one || !isVisible(box.id)) continue;
    const text = shorten(titleOf(one), 28), w = context.measureText(text).width + 10 * ratio, h = size + 6 * ratio;
    let x = at.left + box.x * at.sx, y = at.top + box.y * at.sy - h - 2 * ratio;
    x = clamp(x, 2, Math.max(2, $("canvas").width - w - 2));
    y = Math.max(2, y);
    for (let n = 0; n < 8 && taken.some((t) => x < t.x + t.w && t.x < x + w && y < t.y + t.h && t.y < y + h); n++) y += h + 2;
    taken.push({ x, y, w, h });
    const colour = colourOf(box.id);
    context.fillStyle = cssColour(colour, 0.92);
    context.beginPath();
    context.roundRect(x, y, w, h, 4 * ratio);
    context.fill();
    context.fillStyle = isLight(colour) ? "#000" : "#fff";
    context.fillText(text, x + 5 * ratio, y + h / 2);
  }
}

const shorten = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

/** The clicks, the box and the brush. */
function drawMarks(context, at) {
  const ratio = devicePixelRatio || 1, place = ([x, y]) => [at.left + x * at.sx, at.top + y * at.sy];
  for (const [x, y, inside] of state.points) {
    const [px, py] = place([x + 0.5, y + 0.5]);
    context.beginPath();
    context.arc(px, py, 5 * ratio, 0, 7);
    context.fillStyle = inside ? "#00b86b" : "#e5343d";
    context.fill();
    context.lineWidth = 2 * ratio;
    context.strokeStyle = "#fff";
    context.stroke();
  }
  const box = state.drag ?? state.box;
  if (box) {
    const [x0, y0] = place([box[0], box[1]]), [x1, y1] = place([box[2], box[3]]);
    for (const [colour, wide] of [["#000", 3], ["#fff", 1.5]]) {
      context.lineWidth = wide * ratio;
      context.strokeStyle = colour;
      context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    }
  }
  if (state.crosshair) {
    const [px, py] = place(state.crosshair);
    context.lineWidth = 1.5 * ratio;
    context.strokeStyle = "#fff";
    context.strokeRect(px - 7 * ratio, py - 7 * ratio, 14 * ratio, 14 * ratio);
    context.strokeStyle = "#000";
    context.strokeRect(px - 9 * ratio, py - 9 * ratio, 18 * ratio, 18 * ratio);
  }
  if (state.pointer && (state.tool === "brush" || state.tool === "eraser")) {
    const [px, py] = place(state.pointer);
    for (const [colour, wide] of [["#000", 3], ["#fff", 1.5]]) {
      context.beginPath();
      context.ellipse(px, py, state.size * at.sx, state.size * at.sy, 0, 0, 7);
      context.lineWidth = wide * ratio;
      context.strokeStyle = colour;
      context.stroke();
    }
  }
}

// ---- prompts

function clearPrompt() { state.points = []; state.box = null; state.drag = null; }

/** The clicks and the box so far, answered in this frame at once. */
async function sendPrompt() {
  const id = state.creating ? null : state.chosen;
  if (id === null && !state.creating) { tell("Choose an object first, or begin a new one (N)."); clearPrompt(); draw(); return; }
  draw();
  const given = { frame: state.frame, id, points: state.points, box: state.box };
  const told = await attemptSlowly("Making the mask. The first one takes a while: networks are loaded.", () => state.source.call("prompt", given));
  if (!told) { clearPrompt(); draw(); return; }
  const { points, box } = state;
  endCreating(told);
  if (given.frame === state.frame) Object.assign(state, { points, box, promptAt: `${given.frame}|${state.chosen}` });
  draw();
}

/** Takes what was answered to a prompt or a stroke; the object that was new is chosen. */
function endCreating(told) {
  setCreating(false);
  takeDescription(told);
  if (told.id !== null) choose(told.id);
}

function addPoint([x, y], inside) {
  const point = [Math.floor(x), Math.floor(y), inside];
  if (point[0] < 0 || point[1] < 0 || point[0] >= state.video.width || point[1] >= state.video.height) return;
  const subject = `${state.frame}|${state.creating ? "new" : state.chosen}`;
  if (state.promptAt !== subject) clearPrompt();
  state.points.push(point);
  state.promptAt = subject;
  if (!state.points.some((one) => one[2]) && !state.box && !hasMaskHere()) { clearPrompt(); tell("Click on the object first; then Shift-click beside it."); draw(); return; }
  sendPrompt();
}

const hasMaskHere = () => current.masks.some((one) => one.id === state.chosen);

// ---- brush and eraser

function beginStroke(at) {
  if (state.chosen === null && !state.creating) { tell("Choose an object first, or begin a new one (N)."); return; }
  const { width, height } = state.video, canvas = document.createElement("canvas");
  canvas.width = width; canvas.height = height;
  const mask = new Uint8Array(width * height);
  const own = state.creating ? null : current.masks.find((one) => one.id === state.chosen);
  if (own) eachColumn((own.runs ??= decodeCounts(own.counts)), height, (x, from, to) => { for (let y = from; y < to; y++) mask[y * width + x] = 1; });
  state.stroke = { mask, canvas, frame: current.frame, last: at, erase: state.tool === "eraser" };
  paintStroke(at);
}

/** A stroke from the last place to this one. */
function paintStroke(at) {
  const { mask, canvas, last, erase } = state.stroke, { width, height } = state.video, radius = state.size;
  const steps = Math.max(1, Math.ceil(Math.hypot(at[0] - last[0], at[1] - last[1]) / Math.max(1, radius / 2)));
  const context = canvas.getContext("2d");
  context.fillStyle = erase ? "rgb(0 0 0 / .6)" : cssColour(state.creating ? [255, 255, 255] : colourOf(state.chosen));
  for (let n = 0; n <= steps; n++) {
    const x = last[0] + ((at[0] - last[0]) * n) / steps, y = last[1] + ((at[1] - last[1]) * n) / steps;
    for (let py = Math.max(0, Math.ceil(y - radius - 0.5)); py < Math.min(height, y + radius); py++) {
      for (let px = Math.max(0, Math.ceil(x - radius - 0.5)); px < Math.min(width, x + radius); px++) {
        if ((px + 0.5 - x) ** 2 + (py + 0.5 - y) ** 2 <= radius * radius) mask[py * width + px] = erase ? 0 : 1;
      }
    }
    context.beginPath();
    context.arc(x, y, radius, 0, 7);
    context.fill();
  }
  state.stroke.last = at;
  draw();
}

async function endStroke() {
  const { mask, frame } = state.stroke, { width, height } = state.video;
  const given = { frame, id: state.creating ? null : state.chosen, counts: encodeMask(mask, width, height) };
  const told = await attemptSlowly("Taking the mask.", () => state.source.call("paint", given));
  state.stroke = null;
  if (told) endCreating(told); else draw();
}

// ---- pointer on the stage

function onStageDown(event) {
  $("canvas").focus({ preventScroll: true });
  const at = toFrame(event);
  if (event.button === 1 || (event.button === 0 && event.altKey)) { state.pan = { at, middle: state.middle ?? [state.video.width / 2, state.video.height / 2] }; }
  else if (event.button !== 0) return;
  else if (state.tool === "select" || state.source.readOnly) { const id = hitTest(at); choose(id); }
  else if (state.shown !== state.frame || state.busy) return;
  else if (state.tool === "click") addPoint(at, !event.shiftKey);
  else if (state.tool === "box") state.drag = [...at, ...at];
  else beginStroke(at);
  $("canvas").setPointerCapture(event.pointerId);
  event.preventDefault();
}

function onStageMove(event) {
  const at = toFrame(event);
  state.pointer = at;
  if (state.pan) {
    if (!state.zoom) state.zoom = 1;
    state.middle = [state.pan.middle[0], state.pan.middle[1]];
    const now = layout(), box = $("canvas").getBoundingClientRect(), ratio = $("canvas").width / box.width;
    const raw = [((event.clientX - box.left) * ratio - now.left) / now.sx, ((event.clientY - box.top) * ratio - now.top) / now.sy];
    state.middle = [state.pan.middle[0] + state.pan.at[0] - raw[0], state.pan.middle[1] + state.pan.at[1] - raw[1]];
  } else if (state.drag) state.drag = [state.drag[0], state.drag[1], ...at];
  else if (state.stroke && event.buttons) paintStroke(at);
  draw();
}

function onStageUp() {
  if (state.drag) {
    const { width, height } = state.video, [a, b, c, d] = state.drag;
    const box = [clamp(Math.min(a, c), 0, width), clamp(Math.min(b, d), 0, height), clamp(Math.max(a, c), 0, width), clamp(Math.max(b, d), 0, height)];
    state.drag = null;
    if (box[2] - box[0] > 1 && box[3] - box[1] > 1) { state.points = []; state.box = box; state.promptAt = `${state.frame}|${state.creating ? "new" : state.chosen}`; sendPrompt(); }
  } else if (state.stroke && !state.busy) endStroke();
  state.pan = null;
  draw();
}

function zoomBy(factor, at = null) {
  const before = layout(), canvas = $("canvas"), { width, height, pixel_aspect: aspect } = state.video;
  const point = at ?? [(canvas.width / 2 - before.left) / before.sx, (canvas.height / 2 - before.top) / before.sy];
  const zoom = clamp((state.zoom || 1) * factor, 1, 40);
  if (zoom === 1) { state.zoom = 0; state.middle = null; }
  else {
    const screen = [before.left + point[0] * before.sx, before.top + point[1] * before.sy];
    state.zoom = zoom;
    const fit = Math.min(canvas.width / (width * aspect), canvas.height / height), sy = fit * zoom, sx = sy * aspect;
    state.middle = [point[0] + (canvas.width / 2 - screen[0]) / sx, point[1] + (canvas.height / 2 - screen[1]) / sy];
  }
  state.stale = true;
  showFrame();
  draw();
}

// ---- time: the ruler and a bar an object

function barWidth() { return Math.max(50, $("ruler").clientWidth); }

let timelineTimer = 0, timelineSeq = 0;
/** Asks for the bars of the time that is shown, again while the server still looks the result through. */
async function loadTimeline() {
  clearTimeout(timelineTimer);
  const seq = ++timelineSeq, [start, stop] = state.span;
  const told = await attempt(() => state.source.timeline(start, stop, Math.min(stop - start, Math.floor(barWidth()))));
  if (seq !== timelineSeq || !told) return;
  state.timeline = told;
  drawBars();
  const found = await attempt(() => state.source.call("suspicious"));
  if (seq !== timelineSeq || !found) return;
  state.suspicious = found.frames;
  showSuspicious(found);
  if (found.done < 1) timelineTimer = setTimeout(loadTimeline, 800);
}

/** A canvas as large as it is shown. */
function fitCanvas(canvas) {
  const ratio = devicePixelRatio || 1, w = Math.round(canvas.clientWidth * ratio), h = Math.round(canvas.clientHeight * ratio);
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
  return context;
}

const cssValue = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function drawBars() {
  if (!state.video) return; // another one is being opened
  drawRuler();
  for (const row of $("rows").querySelectorAll(".row")) drawBar(Number(row.dataset.id), row.querySelector("canvas"));
  movePlayhead();
}

const hatch = document.createElement("canvas");
/** Diagonal lines in a colour. */
function hatchPattern(context, colour) {
  hatch.width = hatch.height = 6;
  const own = hatch.getContext("2d");
  own.strokeStyle = colour;
  own.lineWidth = 2;
  for (const n of [-6, 0, 6]) { own.beginPath(); own.moveTo(n, 6); own.lineTo(n + 6, 0); own.stroke(); }
  return context.createPattern(hatch, "repeat");
}

function drawBar(id, canvas) {
  const context = fitCanvas(canvas), width = canvas.clientWidth, told = state.timeline?.objects[id];
  const pair = state.comparison?.pairs.find((one) => one.here === id);
  const height = pair ? 11 : canvas.clientHeight - 4, top = pair ? 0 : 2;
  context.fillStyle = cssValue("--track");
  context.fillRect(0, top + height - 1, width, 1);
  if (told) drawSources(context, told, id, width, top, height);
  if (pair) drawIou(context, pair, width, height + 2, canvas.clientHeight - height - 2);
}

function drawSources(context, told, id, width, top, height) {
  const colour = colourOf(id), n = told.sources.length, each = width / n, text = cssValue("--text");
  const fills = { d: cssColour(colour), c: cssColour(colour), f: cssColour(colour, 0.5), b: hatchPattern(context, cssColour(colour)), "?": cssValue("--line") };
  for (let a = 0; a < n; ) {
    let b = a + 1;
    while (b < n && told.sources[b] === told.sources[a] && told.scores[b] === told.scores[a] && told.shares[b] === told.shares[a]) b++;
    const source = told.sources[a];
    if (source !== ".") {
      const tall = Math.max(3, Math.round(height * (source === "?" ? 0.5 : 0.3 + 0.7 * (Number(told.scores[a]) / 9))));
      const x = Math.floor(a * each), w = Math.max(1, Math.ceil(b * each) - x - (each > 6 ? 1 : 0));
      context.globalAlpha = source === "?" ? 1 : 0.35 + 0.65 * (Number(told.shares[a]) / 9);
      context.fillStyle = fills[source];
      context.fillRect(x, top + height - tall, w, tall);
      context.globalAlpha = 1;
      if (source === "c") { context.fillStyle = text; context.fillRect(x, top + height - tall, Math.max(2, w), 2); context.fillRect(x, top + height - 2, Math.max(2, w), 2); }
    }
    a = b;
  }
}

/** The IoU with the other result: full height is 1. */
function drawIou(context, pair, width, top, height) {
  const [start, stop] = state.span, { frames } = state.comparison;
  context.fillStyle = cssValue("--quiet");
  frames.forEach((t, n) => {
    if (t < start || t >= stop || pair.frames[n] === null) return;
    const x = ((t - start) / (stop - start)) * width, next = frames[n + 1] ?? stop;
    const w = Math.max(1, ((next - t) / (stop - start)) * width - (width / (stop - start) > 6 ? 1 : 0)), tall = Math.max(1, height * pair.frames[n]);
    context.fillRect(x, top + height - tall, w, tall);
  });
}

function drawRuler() {
  if (!state.video) return;
  const canvas = $("ruler").querySelector("canvas"), context = fitCanvas(canvas), width = canvas.clientWidth, [start, stop] = state.span;
  const raw = ((stop - start) / width) * 90, power = 10 ** Math.floor(Math.log10(raw));
  const every = Math.max(1, [1, 2, 5, 10].map((n) => n * power).find((n) => n >= raw));
  context.font = '11px system-ui, "Liberation Sans", sans-serif';
  context.textBaseline = "top";
  for (let t = Math.ceil(start / every) * every; t < stop; t += every) {
    const x = ((t - start + 0.5) / (stop - start)) * width;
    context.fillStyle = cssValue("--line");
    context.fillRect(Math.round(x), 16, 1, 6);
    context.fillStyle = cssValue("--quiet");
    const text = String(t), w = context.measureText(text).width;
    context.fillText(text, clamp(x - w / 2, 0, width - w), 2);
  }
  context.fillStyle = cssValue("--track");
  context.fillRect(0, 22, width, 8);
  const [a, b] = state.range, scale = width / (stop - start);
  if (!state.source.readOnly && state.video.can_prompt) {
    context.fillStyle = cssValue("--soft");
    context.fillRect((a - start) * scale, 22, (b - a) * scale, 8);
  }
  context.fillStyle = cssValue("--mark");
  for (const [frame] of state.suspicious) {
    if (frame >= start && frame < stop) context.fillRect(Math.round((frame - start + 0.5) * scale) - 1, 23, 2, 6);
  }
}

function movePlayhead() {
  const [start, stop] = state.span, ruler = $("ruler");
  const left = ruler.getBoundingClientRect().left - $("tracks").getBoundingClientRect().left;
  const x = left + ((state.frame + 0.5 - start) / (stop - start)) * ruler.clientWidth;
  const isInside = state.frame >= start && state.frame < stop;
  $("playhead").style.left = `${x}px`;
  $("playhead").style.height = `${$("tracks").scrollHeight}px`;
  $("playhead").hidden = !isInside;
  ruler.setAttribute("aria-valuenow", state.frame);
  ruler.setAttribute("aria-valuemax", state.video.length - 1);
  ruler.setAttribute("aria-valuemin", 0);
  ruler.setAttribute("aria-valuetext", `frame ${state.frame} of ${state.video.length}`);
}

function setSpan(start, stop) {
  const length = state.video.length, wide = clamp(Math.round(stop - start), Math.min(10, length), length);
  const first = clamp(Math.round(start), 0, length - wide);
  state.span = [first, first + wide];
  loadTimeline();
}

function zoomTime(factor) {
  const [start, stop] = state.span, wide = (stop - start) * factor, at = clamp(state.frame, start, stop);
  const share = (at - start) / (stop - start);
  setSpan(at - wide * share, at - wide * share + wide);
}

function keepPlayheadInView() {
  const [start, stop] = state.span, wide = stop - start;
  if (state.frame < start || state.frame >= stop) setSpan(state.frame - wide * 0.1, state.frame + wide * 0.9);
}

/** Lets the pointer scrub on an element that is as wide as the bars. */
function makeScrubber(element) {
  const seek = (event) => {
    const box = $("ruler").getBoundingClientRect(), [start, stop] = state.span;
    goTo(Math.floor(start + clamp((event.clientX - box.left) / box.width, 0, 0.99999) * (stop - start)));
  };
  element.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    element.setPointerCapture(event.pointerId);
    element.dataset.scrubbing = "1";
    seek(event);
  });
  element.addEventListener("pointermove", (event) => { if (element.dataset.scrubbing) seek(event); });
  for (const end of ["pointerup", "pointercancel"]) element.addEventListener(end, () => delete element.dataset.scrubbing);
}

// ---- the list of objects

function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), use = document.createElementNS(svg.namespaceURI, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const hex = (colour) => `#${colour.map((v) => v.toString(16).padStart(2, "0")).join("")}`;

function makeRow(one) {
  const title = titleOf(one);
  const colour = make("input", { type: "color", "aria-label": `Colour of ${title}`, value: hex(colourOf(one.id)) });
  const name = make("button", { class: "name", title }, make("span", { class: "text" }, one.name), make("span", { class: "number" }, String(one.id)));
  const eye = make("button", { class: "icon eye", "aria-label": `Show ${title}` });
  const solo = make("button", { class: "icon solo", "aria-label": `Only ${title}`, title: "Only this one (S)" }, "S");
  const bar = make("div", { class: "bar" }, make("canvas", { role: "img", "aria-label": `When ${title} is seen` }));
  const row = make("div", { class: "row", "data-id": one.id }, make("div", { class: "who" }, colour, name, eye, solo), bar);
  colour.addEventListener("input", () => {
    state.colours.set(one.id, [1, 3, 5].map((n) => parseInt(colour.value.slice(n, n + 2), 16)));
    drawBar(one.id, bar.firstChild);
    draw();
  });
  name.addEventListener("click", () => choose(one.id));
  eye.addEventListener("click", () => toggleHidden(one.id));
  solo.addEventListener("click", () => toggleSolo(one.id));
  bar.addEventListener("pointerdown", () => choose(one.id));
  makeScrubber(bar);
  return row;
}

function showRows() {
  const wanted = $("filter").value.trim().toLowerCase();
  const found = objects().filter((one) => titleOf(one).toLowerCase().includes(wanted));
  $("rows").replaceChildren(...found.slice(0, MOST_ROWS).map(makeRow));
  if (found.length > MOST_ROWS) $("rows").append(make("p", { class: "quiet" }, `${found.length - MOST_ROWS} more objects; type a name or a number above to find them.`));
  if (!found.length) $("rows").append(make("p", { class: "quiet" }, objects().length ? "No object is called so." : "No objects yet."));
  markRows();
}

function markRows() {
  for (const row of $("rows").querySelectorAll(".row")) {
    const id = Number(row.dataset.id), eye = row.querySelector(".eye"), isOn = isVisible(id);
    row.classList.toggle("chosen", id === state.chosen);
    row.classList.toggle("off", !isOn);
    row.querySelector(".name").setAttribute("aria-pressed", id === state.chosen);
    eye.setAttribute("aria-pressed", !state.hidden.has(id));
    eye.title = state.hidden.has(id) ? "Show (H)" : "Hide (H)";
    eye.replaceChildren(icon(state.hidden.has(id) ? "eye-off" : "eye"));
    row.querySelector(".solo").setAttribute("aria-pressed", state.solo === id);
  }
}

function toggleHidden(id) {
  if (!state.hidden.delete(id)) state.hidden.add(id);
  markRows();
  draw();
}

function toggleSolo(id) {
  state.solo = state.solo === id ? null : id;
  markRows();
  draw();
}

function choose(id) {
  if (id !== state.chosen) clearPrompt();
  state.chosen = id;
  markRows();
  updateChosen();
  draw();
  $("rows").querySelector(".row.chosen")?.scrollIntoView({ block: "nearest" });
}

/** What the side says of the chosen object. */
function updateChosen() {
  const one = state.chosen === null ? null : findObject(state.chosen);
  updatePairs();
  if (!one) state.chosen = null;
  $("object-none").hidden = Boolean(one);
  $("object-some").hidden = !one;
  for (const id of ["confirm", "propagate"]) $(id).disabled = !one || isWorking();
  if (!one) return;
  const here = current.masks.find((mask) => mask.id === one.id);
  const words = { detected: "detected", prompted: "corrected", forward: "propagated forward", backward: "propagated backward" };
  $("object-title").textContent = titleOf(one);
  $("object-facts").textContent = `In ${one.frames} of ${state.video.length} frames, score ${one.score.toFixed(2)}. `
    + (here ? `Here ${words[here.source]}, confidence ${here.score.toFixed(2)}.` : "Not in this frame.");
  if (document.activeElement !== $("name")) $("name").value = one.name;
  $("confirm").disabled ||= !here;
  if ($("merge-with").dataset.for !== `${one.id}|${state.video.revision}`) {
    $("merge-with").dataset.for = `${one.id}|${state.video.revision}`;
    $("merge-with").replaceChildren(make("option", { value: "" }, "…"), ...objects().filter((other) => other !== one).slice(0, 1000)
      .map((other) => make("option", { value: other.id }, titleOf(other))));
  }
}

// ---- suspicious frames

const REASONS = {
  area: (v) => `area ×${v.toFixed(1)}`, place: (v) => `jumps ${v.toFixed(1)} sizes`,
  switch: (v) => `begins where another ends`, presence: () => "held for absent",
};

function showSuspicious(found) {
  $("suspicious-count").textContent = found.done < 1 ? `${state.suspicious.length}, ${Math.round(100 * found.done)} % looked through` : String(state.suspicious.length);
  if (found.damage) tell(found.damage);
  $("suspicious-list").replaceChildren(...state.suspicious.slice(0, 200).map(([frame, id, reason, value]) => {
    const one = findObject(id);
    const button = make("button", { "data-frame": frame }, make("span", {}, `${frame} · ${one ? titleOf(one) : id} · ${REASONS[reason](value)}`));
    button.addEventListener("click", () => { choose(id); goTo(frame); });
    return make("li", {}, button);
  }));
  $("suspicious-back").disabled = $("suspicious-next").disabled = !state.suspicious.length;
  markSuspicious();
  drawRuler();
}

function markSuspicious() {
  for (const button of $("suspicious-list").querySelectorAll("button")) button.setAttribute("aria-current", Number(button.dataset.frame) === state.frame);
}

/** The suspicious frame before or after this one. */
function jumpSuspicious(direction) {
  const frames = [...new Set(state.suspicious.map(([frame]) => frame))].sort((a, b) => a - b);
  const next = direction > 0 ? frames.find((t) => t > state.frame) : frames.findLast((t) => t < state.frame);
  if (next === undefined) { tell(frames.length ? "No suspicious frame on this side." : "No suspicious frames."); return; }
  const found = state.suspicious.find(([frame]) => frame === next);
  choose(found[1]);
  goTo(next);
  $("suspicious-list").querySelector('[aria-current="true"]')?.scrollIntoView({ block: "nearest" });
}

// ---- comparison

const findPair = (there) => state.comparison?.pairs.find((one) => one.there === there)?.here;

async function compareWith(other) {
  state.other = other;
  state.comparison = null;
  otherMasks.clear();
  $("compare-facts").textContent = "";
  if (other) {
    await attempt(() => state.source.call("compare", { other }));
    watchJob();
  }
  updatePairs();
  state.stale = true;
  showFrame();
  drawBars();
}

function takeComparison(told) {
  state.comparison = told;
  overlayKey = "";
  const every = told.frames.length < state.video.length ? ` Compared in ${told.frames.length} of ${state.video.length} frames.` : "";
  const alone = told.only_here.length + told.only_there.length;
  $("compare-facts").textContent = `${told.pairs.length} objects in both, ${told.only_here.length} only here, ${told.only_there.length} only there.${every}`
    + (alone + told.pairs.length ? "" : " Nothing to compare.");
  updatePairs();
  drawBars();
  draw();
}

function updatePairs() {
  const told = state.comparison;
  $("pairs").hidden = !told || !told.pairs.length;
  if (!told) return;
  const n = told.frames.findLastIndex((t) => t <= state.shown);
  $("pairs").tBodies[0].replaceChildren(...told.pairs.slice(0, 200).map((pair) => {
    const one = findObject(pair.here), here = pair.frames[n];
    return make("tr", {}, make("td", {}, one ? titleOf(one) : String(pair.here)), make("td", {}, String(pair.there)),
      make("td", {}, here === null || here === undefined ? "–" : here.toFixed(2)), make("td", {}, pair.iou.toFixed(2)));
  }));
}

// ---- edits

/** Takes what the server says of the video as it is now. */
function takeDescription(told) {
  const isOther = !state.video || told.revision !== state.video.revision;
  state.video = { ...state.video, ...told };
  if (isOther) {
    state.solo = findObject(state.solo) ? state.solo : null;
    showRows();
    forgetMasks();
    loadTimeline();
  }
  updateHead();
  updateChosen();
}

async function edit(verb, given) {
  const told = await attemptSlowly("Working.", () => state.source.call(verb, given));
  if (told) takeDescription(told);
  return told;
}

async function renameObject(event) {
  event.preventDefault();
  if (state.chosen !== null) await edit("rename", { id: state.chosen, name: $("name").value.trim() });
}

async function mergeObject(event) {
  event?.preventDefault();
  const other = $("merge-with").value;
  if (state.chosen === null) return;
  if (other === "") { $("merge-with").focus(); return; }
  await edit("merge", { ids: [state.chosen, Number(other)] });
}

const splitObject = () => state.chosen !== null && edit("split", { id: state.chosen, frame: state.frame });
const dropObject = () => state.chosen !== null && edit("drop", { ids: [state.chosen] });
const confirmMask = () => state.chosen !== null && !$("confirm").disabled && edit("confirm", { id: state.chosen, frame: state.frame });

async function undo(verb) {
  clearPrompt();
  if (state.video[verb === "undo" ? "can_undo" : "can_redo"]) await edit(verb);
}

async function save() {
  const told = await attemptSlowly("Saving.", () => state.source.call("save"));
  if (!told) return;
  takeDescription(told);
  tell(`Saved: ${told.path}`);
}

// ---- work that takes time

const isWorking = () => Boolean(state.job?.running);

async function propagate() {
  if (state.chosen === null || isWorking()) return;
  const [start, stop] = state.range, isWhole = start === 0 && stop === state.video.length;
  const range = isWhole ? {} : { start, stop }; // without one, only as far as anything changes
  clearPrompt();
  const told = await attemptSlowly("Beginning. The first time takes a while: networks are loaded.", () => state.source.call("propagate", { id: state.chosen, ...range }));
  if (told) watchJob();
}

async function watchJob() {
  clearTimeout(state.jobTimer);
  const told = await attempt(() => state.source.call("progress"));
  if (!told) return;
  state.job = told;
  $("job").hidden = !told.running;
  const share = told.total ? told.done / told.total : null;
  if (share === null) $("job-bar").removeAttribute("value"); else $("job-bar").value = share;
  $("job-text").textContent = `${told.name} ${told.total ? `${told.done} of ${told.total}` : ""}`;
  updateChosen();
  if (told.running) { state.jobTimer = setTimeout(watchJob, 250); return; }
  await endJob(told);
}

async function endJob(told) {
  document.body.dataset.ended = told.name;
  if (told.name === "compare") { if (told.value) takeComparison(told.value); else if (told.error) tell(told.error); return; }
  if (told.error) tell(told.error === "stopped" ? "Stopped." : told.error);
  else if (told.name === "export") tell(`Exported: ${told.value}`);
  const now = await attempt(() => state.source.call("describe"));
  if (now) takeDescription(now);
}

async function stopJob() { if (isWorking()) { await attempt(() => state.source.call("stop")); watchJob(); } }

function setRange(start, stop) {
  const length = state.video.length, a = clamp(start, 0, length - 1);
  state.range = [a, clamp(stop, a + 1, length)];
  $("from").value = state.range[0];
  $("to").value = state.range[1] - 1;
  drawRuler();
}

// ---- head, transport, tools

function updateHead() {
  const v = state.video;
  $("title").textContent = v.name;
  document.title = `${v.unsaved ? "• " : ""}${v.name} – masklet`;
  $("facts").textContent = `${v.width}×${v.height} · ${v.length} frames · ${Number(v.rate.toFixed(3))} frames/s · ${v.objects.length} objects`;
  $("undo").disabled = !v.can_undo || isWorking();
  $("redo").disabled = !v.can_redo || isWorking();
  $("save").textContent = v.unsaved ? "Save •" : "Save";
  document.body.classList.toggle("read-only", state.source.readOnly);
  document.body.classList.toggle("no-prompts", !v.can_prompt);
  for (const tool of document.querySelectorAll(".tool")) if (tool.dataset.tool !== "select") tool.disabled = !v.can_prompt;
  $("new").disabled = !v.can_prompt;
  $("compare").hidden = !v.others?.length;
  $("edits").replaceChildren(...v.edits.map((line) => make("li", {}, line)));
  $("notes").replaceChildren(...v.notes.map((line) => make("li", {}, line)));
  $("names").replaceChildren(...(v.categories ?? []).slice(0, 200).map((name) => make("option", { value: name })));
}

function updateTransport() {
  const v = state.video;
  if (document.activeElement !== $("frame")) $("frame").value = state.frame;
  $("clock").textContent = `of ${v.length} · ${formatTime(timeOf(state.frame))}`;
  $("play").setAttribute("aria-label", state.playing ? "Pause" : "Play");
  $("play").replaceChildren(icon(state.playing ? "pause" : "play"));
  movePlayhead();
  markSuspicious();
}

function formatTime(time) {
  const seconds = Math.round(time * 100) / 100, whole = Math.floor(seconds), parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const clock = (parts[0] ? parts : parts.slice(1)).map((n, at) => (at ? String(n).padStart(2, "0") : n)).join(":");
  return `${clock}.${String(Math.round((seconds - whole) * 100)).padStart(2, "0")}`;
}

function setTool(tool) {
  if (tool !== "select" && (state.source.readOnly || !state.video.can_prompt)) return;
  state.tool = tool;
  state.crosshair = null;
  $("canvas").dataset.tool = tool;
  for (const button of document.querySelectorAll(".tool")) {
    button.setAttribute("aria-checked", button.dataset.tool === tool);
    button.tabIndex = button.dataset.tool === tool ? 0 : -1;
  }
  $("size-label").hidden = tool !== "brush" && tool !== "eraser";
  draw();
}

function setCreating(isOn) {
  if (!state.video.can_prompt || state.source.readOnly) return;
  state.creating = isOn;
  clearPrompt();
  if (isOn && state.tool === "select") setTool("click");
  $("new").setAttribute("aria-pressed", isOn);
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  try { localStorage.setItem("masklet-theme", theme); } catch { /* a report may have no place for it */ }
  if (state.video) { drawBars(); draw(); }
}

function readTheme() {
  let kept = null;
  try { kept = localStorage.getItem("masklet-theme"); } catch { /* the same */ }
  return kept ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
}

// ---- keyboard

const SHORTCUTS = [
  ["Space", "play, pause", togglePlay],
  ["ArrowLeft", "one frame back", () => goTo(state.frame - 1)],
  ["ArrowRight", "one frame on", () => goTo(state.frame + 1)],
  ["Shift+ArrowLeft", "one second back", () => goTo(state.frame - Math.max(1, Math.round(state.video.rate)))],
  ["Shift+ArrowRight", "one second on", () => goTo(state.frame + Math.max(1, Math.round(state.video.rate)))],
  ["Home", "first frame", () => goTo(0)],
  ["End", "last frame", () => goTo(state.video.length - 1)],
  ["J", "suspicious frame before", () => jumpSuspicious(-1)],
  ["K", "next suspicious frame", () => jumpSuspicious(1)],
  ["ArrowUp", "object above", () => stepObject(-1)],
  ["ArrowDown", "object below", () => stepObject(1)],
  ["H", "hide, show the object", () => state.chosen !== null && toggleHidden(state.chosen)],
  ["S", "only this object, all", () => state.chosen !== null && toggleSolo(state.chosen)],
  ["R", "rename", () => state.chosen !== null && focusField("name"), true],
  ["M", "merge", () => state.chosen !== null && focusField("merge-with"), true],
  ["X", "split here", splitObject, true],
  ["Delete", "drop", dropObject, true],
  ["V", "choose", () => setTool("select")],
  ["C", "click", () => setTool("click"), true],
  ["B", "box", () => setTool("box"), true],
  ["P", "brush", () => setTool("brush"), true],
  ["E", "eraser", () => setTool("eraser"), true],
  ["[", "smaller brush", () => setSize(Math.min(state.size / 1.25, state.size - 0.5)), true],
  ["]", "larger brush", () => setSize(Math.max(state.size * 1.25, state.size + 0.5)), true],
  ["N", "new object", () => setCreating(!state.creating), true],
  ["Alt+Arrow", "move the cross (with Shift: far)", null, true],
  ["Alt+Enter", "click at the cross (with Shift: beside)", null, true],
  ["Enter", "this mask is right", confirmMask, true],
  ["I", "range begins here", () => setRange(state.frame, Math.max(state.range[1], state.frame + 1)), true],
  ["O", "range ends here", () => setRange(Math.min(state.range[0], state.frame), state.frame + 1), true],
  ["G", "propagate", propagate, true],
  ["Escape", "stop, take marks away", () => { stopJob(); setCreating(false); clearPrompt(); state.crosshair = null; draw(); }],
  ["Ctrl+Z", "undo", () => undo("undo"), true],
  ["Ctrl+Shift+Z", "redo", () => undo("redo"), true],
  ["Ctrl+S", "save", save, true],
  ["+", "zoom in", () => zoomBy(1.25)],
  ["-", "zoom out", () => zoomBy(0.8)],
  ["0", "fit to window", () => zoomBy(0)],
  ["T", "light, dark", () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark")],
  ["?", "this help", () => $("help").showModal()],
];

function stepObject(direction) {
  const ids = [...$("rows").querySelectorAll(".row")].map((row) => Number(row.dataset.id)), n = ids.indexOf(state.chosen);
  if (ids.length) choose(ids[n < 0 ? 0 : clamp(n + direction, 0, ids.length - 1)]);
}

function focusField(id) { $(id).focus(); $(id).select?.(); }

const largestBrush = () => Math.max(20, Math.round(state.video.width / 10));

function setSize(size) {
  state.size = clamp(Math.round(size * 2) / 2, 1, largestBrush());
  $("size").value = state.size;
  draw();
}

/** A key as `SHORTCUTS` has it. */
function nameKey(event) {
  const isLetter = /^[a-z]$/i.test(event.key), key = event.key === " " ? "Space" : isLetter ? event.key.toUpperCase() : event.key;
  const keepsShift = isLetter ? event.ctrlKey || event.metaKey : event.key.length > 1;
  return `${event.ctrlKey || event.metaKey ? "Ctrl+" : ""}${event.shiftKey && keepsShift ? "Shift+" : ""}${key}`;
}

function onKey(event) {
  if (!state.video || document.querySelector("dialog[open]")) return;
  const field = event.target.closest?.("input, select, textarea, summary"), isTyping = field && !["range", "checkbox", "color"].includes(field.type);
  const isArrow = event.key.startsWith("Arrow");
  if (event.altKey && (isArrow || event.key === "Enter")) { moveCross(event); event.preventDefault(); return; }
  if (event.altKey) return;
  if (isTyping && event.key === "Escape") { event.target.blur(); return; }
  if ((isTyping && !(event.ctrlKey && "sS".includes(event.key))) || (field && (isArrow || event.key === " " || event.key === "Home" || event.key === "End"))) return;
  if (event.target.closest?.("button") && (event.key === " " || event.key === "Enter")) return; // its own
  if (event.target.closest?.(".tool") && isArrow) { stepTool(event.key === "ArrowLeft" || event.key === "ArrowUp" ? -1 : 1); event.preventDefault(); return; }
  const wanted = nameKey(event), found = SHORTCUTS.find(([key, , action]) => action && (key === wanted || (wanted === "Ctrl+Y" && key === "Ctrl+Shift+Z") || (wanted === "=" && key === "+")));
  if (!found || (found[3] && state.source.readOnly)) return;
  event.preventDefault();
  found[2]();
}

function stepTool(direction) {
  const tools = [...document.querySelectorAll(".tool:not(:disabled)")], n = tools.findIndex((one) => one.dataset.tool === state.tool);
  const next = tools[(n + direction + tools.length) % tools.length];
  setTool(next.dataset.tool);
  next.focus();
}

/** The cross, with which clicks are made without a mouse. */
function moveCross(event) {
  if (state.source.readOnly || !state.video.can_prompt) return;
  const { width, height } = state.video;
  state.crosshair ??= [Math.floor(width / 2), Math.floor(height / 2)];
  if (event.key === "Enter") {
    if (state.shown === state.frame && !state.busy) addPoint(state.crosshair, !event.shiftKey);
    return;
  }
  const far = Math.max(1, Math.round(width / (event.shiftKey ? 16 : 120)));
  const [dx, dy] = { ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, -far], ArrowDown: [0, far] }[event.key];
  state.crosshair = [clamp(state.crosshair[0] + dx, 0, width - 1), clamp(state.crosshair[1] + dy, 0, height - 1)];
  draw();
}

// ---- the beginning

async function openVideo(number) {
  state.source.video = number;
  state.playing = false;
  images.clear(); masks.clear(); otherMasks.clear();
  Object.assign(state, { frame: 0, shown: -1, chosen: null, solo: null, other: "", comparison: null, timeline: null, suspicious: [], zoom: 0, middle: null, creating: false });
  state.hidden = new Set();
  state.colours = new Map();
  clearPrompt();
  state.video = null;
  const told = await attempt(() => state.source.call("describe"));
  if (!told) return;
  state.video = told;
  state.times = (await attempt(() => state.source.call("times")))?.times ?? [];
  state.span = [0, told.length];
  for (const id of ["frame", "from", "to"]) $(id).max = told.length - 1;
  $("canvas").setAttribute("aria-label", `The frame with its masks, ${told.width} by ${told.height} pixels`);
  $("forms").replaceChildren(...told.forms.map(([name, help]) => make("option", { value: name }, `${name}: ${help}`)));
  $("others").replaceChildren(make("option", { value: "" }, "nothing"), ...told.others.map((name) => make("option", { value: name }, name)));
  setRange(0, told.length);
  $("size").max = largestBrush();
  setSize(told.width / 70);
  setTool("select");
  updateHead();
  showRows();
  resizeStage();
  updateChosen();
  await showFrame();
  loadTimeline();
  watchJob();
}

function resizeStage() {
  const canvas = $("canvas"), ratio = devicePixelRatio || 1;
  const w = Math.max(1, Math.round(canvas.clientWidth * ratio)), h = Math.max(1, Math.round(canvas.clientHeight * ratio));
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  if (state.video && current.frame >= 0) drawNow();
}

function listen(id, event, work) { $(id).addEventListener(event, work); }

function connect() {
  listen("canvas", "pointerdown", onStageDown);
  listen("canvas", "pointermove", onStageMove);
  listen("canvas", "pointerup", onStageUp);
  listen("canvas", "pointerleave", () => { state.pointer = null; draw(); });
  listen("canvas", "wheel", (event) => { event.preventDefault(); zoomBy(event.deltaY < 0 ? 1.15 : 1 / 1.15, toFrame(event)); });
  $("tracks").addEventListener("wheel", (event) => { if (event.ctrlKey) { event.preventDefault(); zoomTime(event.deltaY < 0 ? 0.8 : 1.25); } }, { passive: false });
  makeScrubber($("ruler"));
  listen("play", "click", togglePlay);
  listen("step-back", "click", () => goTo(state.frame - 1));
  listen("step", "click", () => goTo(state.frame + 1));
  listen("frame", "change", () => goTo(Number($("frame").value)));
  listen("speed", "change", () => { state.speed = Number($("speed").value); startClock(); });
  listen("time-in", "click", () => zoomTime(0.5));
  listen("time-out", "click", () => zoomTime(2));
  listen("time-fit", "click", () => setSpan(0, state.video.length));
  listen("zoom-in", "click", () => zoomBy(1.25));
  listen("zoom-out", "click", () => zoomBy(0.8));
  listen("zoom-fit", "click", () => zoomBy(0));
  listen("opacity", "input", () => { state.opacity = Number($("opacity").value) / 100; draw(); });
  listen("labels", "change", () => { state.labels = $("labels").checked; draw(); });
  listen("size", "input", () => setSize(Number($("size").value)));
  listen("new", "click", () => setCreating(!state.creating));
  for (const button of document.querySelectorAll(".tool")) button.addEventListener("click", () => setTool(button.dataset.tool));
  listen("filter", "input", () => { showRows(); drawBars(); });
  listen("rename", "submit", renameObject);
  listen("merge", "submit", mergeObject);
  listen("split", "click", splitObject);
  listen("drop", "click", dropObject);
  listen("confirm", "click", confirmMask);
  listen("propagate", "click", propagate);
  listen("stop", "click", stopJob);
  listen("from", "change", () => setRange(Number($("from").value), state.range[1]));
  listen("to", "change", () => setRange(Math.min(state.range[0], Number($("to").value)), Number($("to").value) + 1));
  listen("suspicious-back", "click", () => jumpSuspicious(-1));
  listen("suspicious-next", "click", () => jumpSuspicious(1));
  listen("others", "change", () => compareWith($("others").value));
  listen("undo", "click", () => undo("undo"));
  listen("redo", "click", () => undo("redo"));
  listen("save", "click", save);
  listen("theme", "click", () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  listen("help-open", "click", () => $("help").showModal());
  listen("export-open", "click", () => $("export").showModal());
  listen("export-form", "submit", async (event) => {
    event.preventDefault();
    $("export").close();
    const told = await attempt(() => state.source.call("export", { form: $("forms").value }));
    if (told) watchJob();
  });
  listen("videos", "change", () => openVideo(Number($("videos").value)));
  document.addEventListener("keydown", onKey);
  window.addEventListener("beforeunload", (event) => { if (state.video?.unsaved && !state.source.readOnly) event.preventDefault(); });
  new ResizeObserver(resizeStage).observe($("stage"));
  new ResizeObserver(() => { if (state.video) loadTimeline(); }).observe($("ruler"));
}

function showShortcuts() {
  const shown = SHORTCUTS.filter(([, , , isEdit]) => !(isEdit && state.source.readOnly));
  const names = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓" };
  $("shortcuts").replaceChildren(...shown.map(([key, help]) => make("div", {}, make("span", {}, help),
    make("kbd", {}, key.replace(/Arrow\w+/, (arrow) => names[arrow] ?? arrow).replaceAll("+", key === "+" ? "+" : " ")))));
}

async function begin() {
  const data = $("data");
  state.source = data ? new ReportSource(JSON.parse(data.textContent)) : new ServerSource();
  setTheme(readTheme());
  connect();
  showShortcuts();
  const videos = await attempt(() => state.source.list());
  if (!videos) return;
  $("videos").replaceChildren(...videos.map((one, n) => make("option", { value: n }, one.name)));
  $("videos-label").hidden = videos.length < 2;
  $("title").hidden = videos.length > 1;
  await openVideo(0);
  if (!state.source.readOnly) setInterval(() => { if (!document.hidden && !isWorking()) attempt(() => state.source.list()); }, 5000);
}

begin();
