// The page: models, MIDI, sound, the piano roll and what joins them.
//
// Drums are { pianoRoll: Uint8Array, timing: Float32Array }, both of drums * steps numbers, a drum
// after another: MIDI velocities, 0 for silence, and microtiming in steps, in [-0.5, 0.5).

// ---------------------------------------------------------------------------------------------
// Random numbers: those of musicvae/random_numbers.py, so that a seed means the same drums there.

const NOISE_STREAM = 0;
const DRAWS_STREAM = 2;
const KERNEL_STREAM = 2 ** 32 - 1;

function mix(x) {
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return (x ^ (x >>> 16)) >>> 0;
}

/** `count` numbers in [0, 1), exact in float32. */
export function uniforms(seed, stream, count) {
  const key = mix(mix(seed) + Math.imul(stream + 1, 0x9e3779b9));
  return Float32Array.from({ length: count }, (_, i) => (mix(mix(i) ^ key) >>> 8) / 2 ** 24);
}

/** `count` standard normals, after Box and Muller. */
export function normals(seed, stream, count) {
  const draws = uniforms(seed, stream, count + (count % 2));
  return Float64Array.from({ length: count }, (_, i) => {
    const radius = Math.sqrt(-2 * Math.log1p(-draws[i - (i % 2)]));
    const angle = 2 * Math.PI * draws[i - (i % 2) + 1];
    return radius * (i % 2 ? Math.sin(angle) : Math.cos(angle));
  });
}

// ---------------------------------------------------------------------------------------------
// Models: folders as docs/onnx.md describes them.

const FORMAT = 3;
// Of greedy drums for taps, as in modeling_musicvae/consensus.py.
const CONSENSUS = { draws: 32, least: 13, temperature: 0.7 };
const WEIGHTS = "model.safetensors";
const RUNTIME = new URL("onnxruntime/", import.meta.url).href;

/** A model, or the runtime, that is missing, damaged or of another kind. */
export class ModelError extends Error {}

async function fetchBytes(url) {
  let response;
  try {
    response = await fetch(url);
  } catch (error) {
    throw new ModelError(`${url}: found no connection (${error.message}), expected a file`);
  }
  if (!response.ok) throw new ModelError(`${url}: found status ${response.status}, expected a file`);
  return response.arrayBuffer();
}

async function fetchJson(url) {
  const bytes = await fetchBytes(url);
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    throw new ModelError(`${url}: found text that is no JSON, expected the description of a model`);
  }
}

/** The number that 16 bits of a float16 stand for. */
function fromHalf(bits) {
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
  const size = exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction;
  return bits & 32768 ? -size : size;
}

async function sha256(bytes) {
  if (!globalThis.crypto?.subtle) return null; // browsers have it on https and localhost alone
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

let runtime; // a promise of onnxruntime-web
let lastRun = Promise.resolve(); // the runtime computes one thing at a time

function loadRuntime() {
  runtime ??= import(`${RUNTIME}ort.wasm.min.mjs`).then(
    (ort) => {
      ort.env.wasm.wasmPaths = RUNTIME;
      ort.env.wasm.numThreads = 1; // more need headers that few hosts send
      ort.env.wasm.proxy = true; // in a worker, so that sound and picture never wait
      return ort;
    },
    () => {
      throw new ModelError(`${RUNTIME}: found no onnxruntime-web, expected it next to the page`);
    },
  );
  return runtime;
}

function inTurn(compute) {
  const result = lastRun.then(compute);
  lastRun = result.catch(() => {});
  return result;
}

/** One exported model. Its parts are loaded when they are first used. */
export class Model {
  constructor(folder, description) {
    this.folder = folder;
    this.description = description;
    const { bars, steps_per_bar, num_drums } = description.config;
    this.grid = { bars, stepsPerBar: steps_per_bar, steps: bars * steps_per_bar, drums: num_drums };
    this.parts = {};
  }

  static async load(folder) {
    const url = `${folder}/musicvae.json`;
    const description = await fetchJson(url);
    if (description?.format !== FORMAT) {
      throw new ModelError(`${url}: found format ${description?.format}, expected ${FORMAT}`);
    }
    return new Model(folder, description);
  }

  /** Latents of new drums, Float32Array. */
  async drawLatents(seed, style = "") {
    const size = this.description.config.latent_size;
    const [mean, scale] = [await this.tensor("latent_mean"), await this.tensor("latent_scale")];
    const center = await this.center(seed, style);
    const noise = normals(seed, NOISE_STREAM, size);
    return Float32Array.from(mean, (value, i) => {
      let sum = value + (center?.[i] ?? 0);
      for (let j = 0; j < size; j++) sum += scale[i * size + j] * noise[j];
      return sum;
    });
  }

  /** The center of the kernel of a seed, of all drums or of a style; null if there are none. */
  async center(seed, style) {
    const { styles, tensors } = this.description;
    const row = styles.indexOf(style);
    const name = row < 0 ? "kernel_centers" : "style_centers";
    if (!tensors[name]) return null;
    const [number, size] = tensors[name].shape.slice(-2);
    const kernel = Math.floor(Math.fround(uniforms(seed, KERNEL_STREAM, 1)[0] * number));
    const rows = await this.tensor(name, row < 0 ? undefined : row);
    return rows.subarray(kernel * size, (kernel + 1) * size);
  }

  /** Latents with more, or less, of attributes: { name: strength in standard deviations }. */
  async addAttributes(latents, strengths) {
    const sums = Float64Array.from(latents);
    for (const [name, strength] of Object.entries(strengths)) {
      const row = this.description.attributes.indexOf(name);
      if (row < 0 || !strength) continue;
      const vector = await this.tensor(`attribute_vectors.${name}`);
      vector.forEach((value, i) => (sums[i] += strength * value));
    }
    return Float32Array.from(sums);
  }

  /** The posterior's mean, and what the decoder is conditioned on, if it is. */
  async encode(drums) {
    const { mean, conditioning } = await this.run("encoder.onnx", {
      piano_roll: ["uint8", drums.pianoRoll, this.shape()],
      timing: ["float32", drums.timing, this.shape()],
    });
    return { latents: mean.data, conditioning };
  }

  /** Drums of latents. `fixed`: see docs/onnx.md; it refers to the drums `given`. */
  async decode(latents, { seed, stream = DRAWS_STREAM, temperature, conditioning, fixed, given }) {
    const { steps, drums, stepsPerBar } = this.grid;
    const { num_draws, config } = this.description;
    const history = [1, drums, (config.lookback_bars ?? 0) * stepsPerBar];
    const cells = drums * steps;
    const { piano_roll, timing } = await this.run("decoder.onnx", {
      latents: ["float32", latents, [1, latents.length]],
      uniform: ["float32", uniforms(seed, stream, steps * num_draws), [steps, 1, num_draws]],
      temperature: ["float32", Float32Array.of(temperature), []],
      fixed: ["uint8", fixed ?? new Uint8Array(cells), this.shape()],
      fixed_piano_roll: ["uint8", given?.pianoRoll ?? new Uint8Array(cells), this.shape()],
      fixed_timing: ["float32", given?.timing ?? new Float32Array(cells), this.shape()],
      history_piano_roll: ["uint8", new Uint8Array(drums * history[2]), history],
      history_timing: ["float32", new Float32Array(drums * history[2]), history],
      conditioning: conditioning && [conditioning.type, conditioning.data, conditioning.dims],
    });
    return { pianoRoll: piano_roll.data, timing: timing.data };
  }

  /** Humanizes, adds drums, or makes drums of a tapped rhythm: what the model is trained for. */
  async transform(drums, { seed, temperature }) {
    const { task, config } = this.description;
    const { latents, conditioning } = await this.encode(drums);
    const fixed = new Uint8Array(drums.pianoRoll.length).fill({ humanize: 1, add: 2 }[task] ?? 0);
    if (task === "add") {
      const { steps } = this.grid;
      for (const drum of config.removed_drums) fixed.fill(0, drum * steps, (drum + 1) * steps);
    }
    let given = mask(drums, fixed);
    if (task === "tap" && temperature === 0) {
      given = { pianoRoll: await this.consensus(latents, conditioning), timing: given.timing };
      fixed.fill(1);
    }
    const made = await this.decode(latents, { seed, temperature, conditioning, fixed, given });
    if (task === "tap") return followTaps(config, made, drums, this.grid);
    return keepFixed(made, drums, fixed);
  }

  /** The hits for taps that whole draws agree on: 1 where there is one. */
  async consensus(latents, conditioning) {
    const counts = new Uint8Array(this.grid.drums * this.grid.steps);
    const { draws, least, temperature } = CONSENSUS;
    for (let draw = 0; draw < draws; draw++) {
      const options = { seed: 0, stream: DRAWS_STREAM + draw, temperature, conditioning };
      const { pianoRoll } = await this.decode(latents, options);
      pianoRoll.forEach((velocity, cell) => (counts[cell] += velocity > 0));
    }
    return counts.map((count) => count >= least);
  }

  shape() {
    return [1, this.grid.drums, this.grid.steps];
  }

  /** Runs a graph on those of the inputs that it has. */
  async run(name, inputs) {
    const [ort, session] = await Promise.all([loadRuntime(), this.part(name)]);
    const feeds = {};
    for (const input of session.inputNames) {
      const [type, data, dims] = inputs[input] ?? [];
      if (!type) throw new ModelError(`${this.folder}/${name}: found input ${input}, expected none`);
      feeds[input] = new ort.Tensor(type, data.slice(), dims); // the worker takes it away
    }
    return inTurn(() => session.run(feeds));
  }

  /** A tensor of the weights, or a row of it, Float32Array. */
  async tensor(name, row) {
    const { dtype, shape, offset } = this.description.tensors[name];
    const bytes = await this.part(WEIGHTS);
    const size = shape.slice(row === undefined ? 0 : 1).reduce((a, b) => a * b, 1);
    const width = dtype === "F16" ? 2 : 4;
    const start = offset + width * size * (row ?? 0);
    const data = bytes.slice(start, start + width * size); // for an offset need not be aligned
    return dtype === "F16" ? Float32Array.from(new Uint16Array(data), fromHalf) : new Float32Array(data);
  }

  /** The session of a graph, or the bytes of another file. */
  part(name) {
    this.parts[name] ??= name.endsWith(".onnx") ? this.session(name) : this.checkedBytes(name);
    this.parts[name].catch(() => delete this.parts[name]); // so that it may be tried again
    return this.parts[name];
  }

  async session(name) {
    const parts = [loadRuntime(), this.checkedBytes(name), this.part(WEIGHTS)];
    const [ort, bytes, weights] = await Promise.all(parts);
    try {
      const options = {
        executionProviders: ["wasm"],
        graphOptimizationLevel: "disabled", // it takes longer than it saves
        externalData: [{ path: WEIGHTS, data: new Uint8Array(weights) }],
      };
      return await inTurn(() => ort.InferenceSession.create(new Uint8Array(bytes), options));
    } catch (error) {
      throw new ModelError(`${this.folder}/${name}: onnxruntime-web refuses it: ${error.message}`);
    }
  }

  async checkedBytes(name) {
    const url = `${this.folder}/${name}`;
    const expected = this.description.files[name];
    if (!expected) throw new ModelError(`${this.folder}/musicvae.json: found no ${name} in files`);
    const bytes = await fetchBytes(url);
    if (bytes.byteLength !== expected.bytes) {
      throw new ModelError(`${url}: found ${bytes.byteLength} bytes, expected ${expected.bytes}`);
    }
    const digest = await sha256(bytes);
    if (digest && digest !== expected.sha256) {
      throw new ModelError(`${url}: found damaged data, expected sha256 ${expected.sha256}`);
    }
    return bytes;
  }
}

/** The fixed part of drums: hits where `fixed` is not 0, with their timing where it is 2. */
function mask(drums, fixed) {
  return {
    pianoRoll: drums.pianoRoll.map((velocity, i) => (fixed[i] ? velocity : 0)),
    timing: drums.timing.map((timing, i) => (fixed[i] === 2 ? timing : 0)),
  };
}

/** Drums with what was given of them exactly: models know velocity and timing in classes alone. */
function keepFixed(made, drums, fixed) {
  const keep = (own, given) => own.map((value, i) => (fixed[i] === 2 ? given[i] : value));
  return {
    pianoRoll: keep(made.pianoRoll, drums.pianoRoll),
    timing: keep(made.timing, drums.timing),
  };
}

/** Drums that were made for taps, with their feel: as `follow_taps` in modeling_musicvae. */
function followTaps({ input_transform, output, ...bins }, made, taps, { drums, steps }) {
  const hitsAlone = { nade: true, groove: false }[output] ?? bins.velocity_bins + bins.timing_bins === 0;
  if (hitsAlone) return made;
  const [pianoRoll, timing] = [made.pianoRoll.slice(), made.timing.slice()];
  for (let step = 0; step < steps; step++) {
    const cells = Array.from({ length: drums }, (_, drum) => drum * steps + step);
    const tap = cells.reduce((a, b) => (taps.pianoRoll[b] > taps.pianoRoll[a] ? b : a));
    const velocity = taps.pianoRoll[tap];
    const hits = cells.filter((cell) => velocity && made.pianoRoll[cell]);
    const loudest = Math.max(...hits.map((cell) => made.pianoRoll[cell]));
    for (const cell of hits) {
      timing[cell] = taps.timing[tap];
      if (input_transform !== "tap") continue;
      pianoRoll[cell] = made.pianoRoll[cell] === loudest ? velocity : Math.min(velocity, pianoRoll[cell]);
    }
  }
  return { pianoRoll, timing };
}

/** The latent at `fraction` of the great arc from one to another; the norm changes evenly. */
export function interpolate(start, end, fraction) {
  const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
  const norms = [Math.sqrt(dot(start, start)), Math.sqrt(dot(end, end))];
  const norm = norms[0] + fraction * (norms[1] - norms[0]);
  const cosine = dot(start, end) / (norms[0] * norms[1]);
  const angle = Math.acos(Math.min(1, Math.max(-1, cosine)));
  const weights = Math.sin(angle) < 1e-4
    ? [1 - fraction, fraction]
    : [(1 - fraction) * angle, fraction * angle].map((part) => Math.sin(part) / Math.sin(angle));
  return start.map(
    (value, i) => norm * (weights[0] * (value / norms[0]) + weights[1] * (end[i] / norms[1])),
  );
}

// ---------------------------------------------------------------------------------------------
// MIDI files.

const TICKS_PER_QUARTER = 480;
const DRUM_CHANNEL = 9;
const MAX_MIDI_BYTES = 2 ** 20;

/** A MIDI file that cannot be used. */
export class MidiError extends Error {}

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  byte() {
    if (this.at >= this.bytes.length) throw new MidiError("found the end of the data in an event");
    return this.bytes[this.at++];
  }

  take(count) {
    if (this.at + count > this.bytes.length) throw new MidiError("found data that is cut short");
    return this.bytes.subarray(this.at, (this.at += count));
  }

  /** A big-endian number. */
  number(count) {
    return this.take(count).reduce((sum, byte) => sum * 256 + byte, 0);
  }

  /** A number of variable length. */
  length() {
    let value = 0;
    for (let i = 0; i < 4; i++) {
      const byte = this.byte();
      value = value * 128 + (byte & 127);
      if (byte < 128) return value;
    }
    throw new MidiError("found a number of more than four bytes");
  }

  text() {
    return String.fromCharCode(...this.take(4));
  }
}

/** { ticksPerQuarter, notes: [{ tick, channel, pitch, velocity }], tempos, metres, endTick } */
export function parseMidi(bytes) {
  if (bytes.length > MAX_MIDI_BYTES) {
    throw new MidiError(`found ${bytes.length} bytes, expected at most ${MAX_MIDI_BYTES}`);
  }
  const reader = new Reader(bytes);
  if (bytes.length > 20 && reader.text() === "RIFF") reader.at = 20; // RMID: a file in a box
  else reader.at = 0;
  if (bytes.length < 14 || reader.text() !== "MThd") throw new MidiError("found no MIDI file");
  const header = new Reader(reader.take(reader.number(4)));
  const [format, numTracks, division] = [header.number(2), header.number(2), header.number(2)];
  if (format > 1) throw new MidiError(`found format ${format}, expected 0 or 1`);
  if (division >= 0x8000 || division === 0) {
    throw new MidiError("found time in seconds, expected ticks of a quarter");
  }
  const midi = { ticksPerQuarter: division, notes: [], tempos: [], metres: [], endTick: 0 };
  for (let track = 0; track < numTracks && reader.at + 8 <= bytes.length; ) {
    const [kind, size] = [reader.text(), reader.number(4)];
    const data = reader.take(Math.min(size, bytes.length - reader.at));
    if (kind !== "MTrk") continue;
    parseTrack(new Reader(data), midi);
    track++;
  }
  midi.tempos.sort((a, b) => a.tick - b.tick);
  return midi;
}

function parseTrack(reader, midi) {
  let [tick, running] = [0, 0];
  while (reader.at < reader.bytes.length) {
    tick += reader.length();
    let status = reader.byte();
    if (status < 0x80) {
      if (!running) throw new MidiError("found data without a status");
      [status, reader.at] = [running, reader.at - 1];
    }
    if (status === 0xff) {
      const kind = reader.byte();
      const data = reader.take(reader.length());
      if (kind === 0x2f) break;
      if (kind === 0x51 && data.length >= 3) {
        midi.tempos.push({ tick, microseconds: data[0] * 65536 + data[1] * 256 + data[2] });
      }
      if (kind === 0x58 && data.length >= 2) {
        midi.metres.push({ tick, numerator: data[0], denominator: 2 ** data[1] });
      }
    } else if (status >= 0xf0) {
      reader.take(reader.length());
    } else {
      running = status;
      const [kind, channel] = [status >> 4, status & 15];
      const [first, second] = [reader.byte(), kind === 12 || kind === 13 ? 0 : reader.byte()];
      if (kind === 9 && second > 0) {
        midi.notes.push({ tick, channel, pitch: first & 127, velocity: second & 127 });
      }
    }
  }
  midi.endTick = Math.max(midi.endTick, tick);
}

function drumNotes(midi) {
  const channels = [...new Set(midi.notes.map((note) => note.channel))].sort((a, b) => a - b);
  if (!channels.length) throw new MidiError("found no note, expected drums on channel 10");
  if (!channels.includes(DRUM_CHANNEL) && channels.length > 1) {
    const found = channels.map((channel) => channel + 1).join(", ");
    throw new MidiError(`found notes on channels ${found}, expected drums on channel 10`);
  }
  const channel = channels.includes(DRUM_CHANNEL) ? DRUM_CHANNEL : channels[0];
  return midi.notes.filter((note) => note.channel === channel);
}

/**
 * The windows of a MIDI file on the grid.
 *
 * A file that ends on a bar line is a loop: a hit that is early for the bar after the last one
 * belongs to the first step.
 *
 * Returns { windows: [drums], bpm, notices: [what was ignored or assumed] }.
 */
export function readMidi(bytes, grid, pitchMap) {
  const midi = parseMidi(bytes);
  const notes = drumNotes(midi);
  const notices = [];
  const lastTick = Math.max(...notes.map((note) => note.tick));
  const odd = midi.metres.find((m) => m.numerator !== m.denominator && m.tick <= lastTick);
  if (odd) throw new MidiError(`found ${odd.numerator}/${odd.denominator}, expected 4/4`);
  if (notes[0].channel !== DRUM_CHANNEL) {
    notices.push(`no note on channel 10, read channel ${notes[0].channel + 1}`);
  }
  if (new Set(midi.tempos.map((tempo) => tempo.microseconds)).size > 1) {
    notices.push("only the first tempo is kept");
  }
  const drumOf = new Map(pitchMap.flatMap((pitches, drum) => pitches.map((p) => [p, drum])));
  const unknown = notes.filter((note) => !drumOf.has(note.pitch)).map((note) => note.pitch);
  if (unknown.length === notes.length) throw new MidiError("found no pitch of a General MIDI kit");
  if (unknown.length) {
    notices.push(`${counted(unknown.length, "note")} of no drum (pitches ${[...new Set(unknown)].join(", ")})`);
  }
  const windows = quantize(midi, notes, grid, drumOf, notices);
  const bpm = 6e7 / (midi.tempos[0]?.microseconds || 5e5);
  return { windows, bpm, notices };
}

function quantize(midi, notes, grid, drumOf, notices) {
  const ticksPerStep = (4 * midi.ticksPerQuarter) / grid.stepsPerBar;
  const endStep = midi.endTick / ticksPerStep;
  const loopSteps = endStep > 0 && endStep % grid.stepsPerBar === 0 ? endStep : Infinity;
  const hits = [];
  for (const { tick, pitch, velocity } of notes) {
    const drum = drumOf.get(pitch);
    if (drum === undefined) continue;
    const step = Math.floor(tick / ticksPerStep + 0.5);
    hits.push({ drum, step: step % loopSteps, timing: tick / ticksPerStep - step, velocity });
  }
  const lastStep = hits.reduce((last, hit) => Math.max(last, hit.step), 0);
  if (lastStep >= 4096 * grid.stepsPerBar) throw new MidiError("found more than 4096 bars");
  const count = Math.floor(lastStep / grid.steps) + 1;
  const windows = Array.from({ length: count }, () => silence(grid));
  let merged = 0;
  for (const { drum, step, timing, velocity } of hits) {
    const { pianoRoll, timing: timings } = windows[Math.floor(step / grid.steps)];
    const cell = drum * grid.steps + (step % grid.steps);
    merged += pianoRoll[cell] > 0;
    if (pianoRoll[cell] >= velocity) continue; // of two hits of a drum on a step the louder stays
    [pianoRoll[cell], timings[cell]] = [velocity, timing];
  }
  if (merged) notices.push(`${counted(merged, "note")} merged with a louder one on the same step`);
  return windows;
}

export function silence(grid) {
  const cells = grid.drums * grid.steps;
  return { pianoRoll: new Uint8Array(cells), timing: new Float32Array(cells) };
}

/** The hits of drums in time order: [{ drum, step, cell, velocity, timing }]. */
function hitsOf({ pianoRoll, timing }, grid) {
  const hits = [];
  pianoRoll.forEach((velocity, cell) => {
    if (!velocity) return;
    const [drum, step] = [Math.floor(cell / grid.steps), cell % grid.steps];
    hits.push({ drum, step, cell, velocity, timing: timing[cell] });
  });
  return hits.sort((a, b) => a.step + a.timing - b.step - b.timing);
}

const bigEndian = (value, count) =>
  Array.from({ length: count }, (_, i) => (value >>> (8 * (count - 1 - i))) & 255);

function variableLength(value) {
  const bytes = [value & 127];
  while ((value >>>= 7)) bytes.unshift((value & 127) | 128);
  return bytes;
}

function trackBytes(events, endTick) {
  const bytes = [];
  let now = 0;
  for (const { tick, data } of [...events, { tick: endTick, data: [0xff, 0x2f, 0] }]) {
    bytes.push(...variableLength(tick - now), ...data);
    now = tick;
  }
  return [..."MTrk"].map((c) => c.charCodeAt(0)).concat(bigEndian(bytes.length, 4), bytes);
}

/**
 * Drums as a MIDI file of type 1, whole bars long, so that it loops in any sequencer. An early hit
 * on the first step comes at the end of the last bar.
 */
export function writeMidi(drums, grid, bpm, pitchMap) {
  const ticksPerStep = (4 * TICKS_PER_QUARTER) / grid.stepsPerBar;
  const endTick = grid.steps * ticksPerStep;
  const hits = hitsOf(drums, grid).map(({ drum, step, velocity, timing }) => {
    const nearest = Math.floor((step + timing) * ticksPerStep + 0.5);
    const [first, last] = [(step - 0.5) * ticksPerStep, (step + 0.5) * ticksPerStep - 1];
    const tick = Math.min(Math.max(nearest, Math.ceil(first)), Math.ceil(last));
    return { pitch: pitchMap[drum][0], velocity, tick: (tick + endTick) % endTick };
  });
  const events = [];
  for (const { pitch, velocity, tick } of hits) {
    const later = hits.filter((hit) => hit.pitch === pitch && hit.tick > tick);
    const end = Math.min(tick + ticksPerStep, endTick, ...later.map((hit) => hit.tick));
    events.push({ tick, on: 1, data: [0x90 | DRUM_CHANNEL, pitch, velocity] });
    events.push({ tick: end, on: 0, data: [0x80 | DRUM_CHANNEL, pitch, 0] });
  }
  events.sort((a, b) => a.tick - b.tick || a.on - b.on);
  const name = (text) => [0xff, 3, text.length, ...[...text].map((c) => c.charCodeAt(0))];
  const conductor = [
    name("MusicVAE"),
    [0xff, 0x51, 3, ...bigEndian(Math.round(6e7 / bpm), 3)],
    [0xff, 0x58, 4, 4, 2, 24, 8],
  ].map((data) => ({ tick: 0, data }));
  const tracks = [conductor, [{ tick: 0, data: name("Drums") }, ...events]];
  const header = [0x4d, 0x54, 0x68, 0x64, 0, 0, 0, 6, 0, 1, 0, 2];
  return Uint8Array.from([
    ...header,
    ...bigEndian(TICKS_PER_QUARTER, 2),
    ...tracks.flatMap((track) => trackBytes(track, endTick)),
  ]);
}

// ---------------------------------------------------------------------------------------------
// Sound: nine synthesised drums.

const SAMPLE_RATE = 44100; // of WAV files
const SECONDS_AHEAD = 0.12; // that hits are handed to the sound card before they sound
const SECONDS_LATE = 0.03; // of which a hit may still sound
const SECONDS_AHEAD_HIDDEN = 1.5; // timers of hidden pages fire once a second
const [CLOSED_HIHAT, OPEN_HIHAT] = [2, 3];

const decay = (seconds, t) => Math.exp(-t / seconds);
const sine = (hertz, t) => Math.sin(2 * Math.PI * hertz * t);
/** A tone that falls from (1 + rise) times its pitch. */
const falling = (hertz, rise, seconds, t) =>
  Math.sin(2 * Math.PI * hertz * (t + rise * seconds * (1 - decay(seconds, t))));
/** Six squares without a common pitch, as in the cymbals of old drum machines. */
const metal = (hertz, t) =>
  [1, 1.342, 1.523, 1.811, 2.317, 2.643].reduce((s, r) => s + Math.sign(sine(hertz * r, t)), 0) / 6;

// For each drum its seconds, level, place from left to right, the pitch under which its noise is
// taken away, and the sound at a time, of time and noise.
const KIT = [
  [0.5, 1.0, 0, 0, (t, n) => falling(47, 4.2, 0.02, t) * decay(0.15, t) + 0.5 * n * decay(0.003, t)],
  [0.4, 0.75, 0.05, 900, (t, n) =>
    0.55 * (sine(186, t) + 0.6 * sine(331, t)) * decay(0.05, t) + 0.8 * n * decay(0.085, t)],
  [0.15, 0.32, -0.3, 7000, (t, n) => (0.7 * n + 0.3 * metal(2100, t)) * decay(0.028, t)],
  [0.8, 0.34, -0.3, 6500, (t, n) => (0.7 * n + 0.3 * metal(2100, t)) * decay(0.22, t)],
  [0.7, 0.7, 0.35, 300, (t, n) => falling(82, 0.7, 0.05, t) * decay(0.2, t) + 0.25 * n * decay(0.02, t)],
  [0.6, 0.65, 0.15, 300, (t, n) => falling(118, 0.6, 0.05, t) * decay(0.17, t) + 0.25 * n * decay(0.02, t)],
  [0.5, 0.6, -0.1, 300, (t, n) => falling(164, 0.5, 0.05, t) * decay(0.15, t) + 0.25 * n * decay(0.02, t)],
  [2.2, 0.42, -0.4, 3500, (t, n) => (0.8 * n + 0.3 * metal(1430, t)) * (decay(0.6, t) + decay(0.04, t))],
  [1.6, 0.3, 0.4, 5000, (t, n) =>
    (0.35 * n + 0.3 * metal(2730, t)) * (0.6 * decay(0.4, t) + decay(0.02, t)) +
    0.25 * (sine(3120, t) + sine(4870, t)) * decay(0.12, t)],
];

const kits = {};

/** An AudioBuffer for each drum, made once for a sample rate. */
function sounds(sampleRate) {
  kits[sampleRate] ??= KIT.map((_, drum) => {
    const samples = synthesize(drum, sampleRate);
    const buffer = new AudioBuffer({ length: samples.length, sampleRate });
    buffer.copyToChannel(samples, 0);
    return buffer;
  });
  return kits[sampleRate];
}

function synthesize(drum, sampleRate) {
  const [seconds, , , lowCut, sound] = KIT[drum];
  const noise = uniforms(drum, 0, Math.ceil(seconds * sampleRate));
  const pole = Math.exp((-2 * Math.PI * lowCut) / sampleRate);
  const fade = 0.02 * sampleRate;
  let [before, high, peak] = [0, 0, 0];
  const samples = noise.map((draw, i) => {
    const white = 2 * draw - 1;
    high = lowCut ? pole * (high + white - before) : white;
    before = white;
    const value = sound(i / sampleRate, high) * Math.min(1, (noise.length - i) / fade);
    peak = Math.max(peak, Math.abs(value));
    return value;
  });
  return samples.map((value) => value / peak);
}

/** The drums, a little room, and a soft limit, in an AudioContext or an OfflineAudioContext. */
class DrumKit {
  constructor(context) {
    this.context = context;
    this.buffers = sounds(context.sampleRate);
    const limit = context.createWaveShaper();
    limit.curve = Float32Array.from({ length: 2049 }, (_, i) => Math.tanh(i / 1024 - 1) / Math.tanh(1));
    limit.connect(context.destination);
    this.output = context.createGain();
    this.output.gain.value = 0.55;
    this.output.connect(limit);
    const room = context.createConvolver();
    room.normalize = false;
    room.buffer = this.roomResponse();
    this.output.connect(room).connect(limit);
  }

  roomResponse() {
    const { sampleRate } = this.context;
    const buffer = this.context.createBuffer(2, Math.ceil(0.5 * sampleRate), sampleRate);
    for (const channel of [0, 1]) {
      const noise = uniforms(100 + channel, 0, buffer.length);
      const tail = noise.map((draw, i) => 0.018 * (2 * draw - 1) * decay(0.09, i / sampleRate));
      buffer.copyToChannel(tail.fill(0, 0, 0.008 * sampleRate), channel);
    }
    return buffer;
  }

  /** A gain through which hits go, so that all of them can be silenced together. */
  bus() {
    const bus = this.context.createGain();
    bus.connect(this.output);
    return bus;
  }

  hit(drum, velocity, time, bus) {
    const [, level, place] = KIT[drum];
    const force = velocity / 127;
    const source = this.context.createBufferSource();
    source.buffer = this.buffers[drum];
    const brightness = this.context.createBiquadFilter();
    brightness.type = "lowpass";
    brightness.frequency.value = Math.min(900 + 19000 * force ** 1.5, this.context.sampleRate / 2);
    const gain = this.context.createGain();
    gain.gain.setValueAtTime(level * force ** 1.7, time);
    const panner = this.context.createStereoPanner();
    panner.pan.value = place;
    source.connect(brightness).connect(gain).connect(panner).connect(bus);
    source.start(time);
    if (drum === CLOSED_HIHAT || drum === OPEN_HIHAT) {
      this.ringing?.gain.setTargetAtTime(0, Math.max(time, this.ringingSince), 0.012);
      this.ringing = drum === OPEN_HIHAT ? gain : null;
      this.ringingSince = time;
    }
  }

  click(time, bus, strong) {
    const oscillator = this.context.createOscillator();
    oscillator.frequency.value = strong ? 1600 : 1100;
    const gain = this.context.createGain();
    gain.gain.setValueAtTime(0.25, time);
    gain.gain.exponentialRampToValueAtTime(0.001, time + 0.05);
    oscillator.connect(gain).connect(bus);
    oscillator.start(time);
    oscillator.stop(time + 0.06);
  }
}

/** Drums in a loop, timed by the audio clock: `source()` is asked for them step by step. */
export class Player {
  /** `source()` returns { drums, grid, bpm }. */
  constructor(source) {
    Object.assign(this, { source, anchors: [], timer: null });
  }

  get playing() {
    return Boolean(this.timer);
  }

  /** Opens the sound card, which browsers allow in answer to a click or a key alone. */
  async open() {
    this.context ??= new AudioContext({ latencyHint: "interactive" });
    this.kit ??= new DrumKit(this.context);
    await this.context.resume();
  }

  /** Starts at the first step; see `open`. */
  start() {
    if (this.playing) return;
    const { drums, grid, bpm } = this.source();
    const early = Math.min(0, ...hitsOf(drums, grid).filter((h) => !h.step).map((h) => h.timing));
    this.bus = this.kit.bus();
    this.step = 0;
    this.bpm = bpm;
    const stepSeconds = 240 / bpm / grid.stepsPerBar;
    const time = this.context.currentTime + 0.05 - early * stepSeconds;
    this.anchors = [{ time, step: 0, stepSeconds }];
    this.timer = setInterval(() => this.schedule(), 25);
    this.schedule();
  }

  stop() {
    clearInterval(this.timer);
    this.timer = null;
    if (!this.bus) return;
    const bus = this.bus;
    bus.gain.setTargetAtTime(0, this.context.currentTime, 0.012);
    setTimeout(() => bus.disconnect(), 200);
    this.bus = null;
  }

  /** Hands all hits that are due soon to the sound card. */
  schedule() {
    const ahead = document.hidden ? SECONDS_AHEAD_HIDDEN : SECONDS_AHEAD;
    const horizon = this.context.currentTime + ahead;
    for (;;) {
      const { drums, grid, bpm } = this.source();
      if (bpm !== this.bpm) this.changeTempo(bpm, grid);
      const { time, step, stepSeconds } = this.anchors.at(-1);
      const begin = time + (this.step - 0.5 - step) * stepSeconds; // the earliest of a step's hits
      if (begin > horizon) return;
      const inLoop = this.step % grid.steps;
      for (let drum = 0; drum < grid.drums; drum++) {
        const cell = drum * grid.steps + inLoop;
        if (!drums.pianoRoll[cell]) continue;
        const onset = begin + (0.5 + drums.timing[cell]) * stepSeconds;
        const late = this.context.currentTime - onset;
        if (late > SECONDS_LATE) continue; // the page was held up: what is missed is not made up for
        this.kit.hit(drum, drums.pianoRoll[cell], onset + Math.max(late, 0), this.bus);
      }
      this.step++;
    }
  }

  changeTempo(bpm, grid) {
    const { time, step, stepSeconds } = this.anchors.at(-1);
    const next = this.step - 0.5; // all before it is scheduled
    this.anchors.push({
      time: time + (next - step) * stepSeconds,
      step: next,
      stepSeconds: 240 / bpm / grid.stepsPerBar,
    });
    this.anchors = this.anchors.slice(-8);
    this.bpm = bpm;
  }

  /** A drum at once. */
  audition(drum, velocity) {
    this.preview ??= this.kit.bus();
    this.kit.hit(drum, velocity, this.context.currentTime, this.preview);
  }

  /** The time of the audio clock that is heard at a time of `performance.now()`. */
  heardTime(now = performance.now()) {
    const { contextTime, performanceTime } = this.context.getOutputTimestamp();
    if (!performanceTime) return this.context.currentTime; // nothing was heard yet
    return contextTime + (now - performanceTime) / 1000;
  }

  /** The place that is heard now, in steps since the start; null if nothing is. */
  heard() {
    if (!this.bus) return null;
    const time = this.heardTime();
    const anchor = this.anchors.findLast((each) => each.time <= time) ?? this.anchors[0];
    return anchor.step + (time - anchor.time) / anchor.stepSeconds;
  }
}

/** Drums as a WAV file, exactly as long as their bars: what rings on at its end begins it. */
export async function renderWav(drums, grid, bpm) {
  const stepSeconds = 240 / bpm / grid.stepsPerBar;
  const length = Math.round(grid.steps * stepSeconds * SAMPLE_RATE);
  const context = new OfflineAudioContext(2, 2 * length, SAMPLE_RATE);
  const kit = new DrumKit(context);
  const bus = kit.bus();
  for (const start of [0, length / SAMPLE_RATE, (2 * length) / SAMPLE_RATE]) {
    for (const { drum, step, timing, velocity } of hitsOf(drums, grid)) {
      const time = start + (step + timing) * stepSeconds;
      if (time >= 0 && time < (2 * length) / SAMPLE_RATE) kit.hit(drum, velocity, time, bus);
    }
  }
  const sound = await context.startRendering();
  return wavBytes([0, 1].map((channel) => sound.getChannelData(channel).subarray(length)));
}

function wavBytes([left, right]) {
  const view = new DataView(new ArrayBuffer(44 + 4 * left.length));
  const text = (at, word) => [...word].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 4 * left.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 2, true);
  view.setUint32(24, SAMPLE_RATE, true);
  view.setUint32(28, 4 * SAMPLE_RATE, true);
  view.setUint16(32, 4, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 4 * left.length, true);
  left.forEach((value, i) => {
    view.setInt16(44 + 4 * i, Math.round(32767 * value), true);
    view.setInt16(46 + 4 * i, Math.round(32767 * right[i]), true);
  });
  return new Uint8Array(view.buffer);
}

// ---------------------------------------------------------------------------------------------
// The piano roll.

const BEAT_PARTS = { 4: ["", "e", "and", "a"] };

class Roll {
  /** `edit(cell, velocity)` is asked to change a hit. */
  constructor(element, grid, names, edit) {
    Object.assign(this, { element, grid, names, edit, drums: silence(grid) });
    const bar = `repeat(${grid.stepsPerBar}, minmax(0, 1fr))`;
    element.style.setProperty("--wide", Array(grid.bars).fill(bar).join(" 6px "));
    element.style.setProperty("--narrow", Array(Math.ceil(grid.bars / 2)).fill(bar).join(" 4px "));
    this.cells = names.flatMap((name, drum) => this.buildRow(name, drum));
    this.playhead = element.appendChild(document.createElement("div"));
    this.playhead.className = "playhead";
    this.playhead.setAttribute("aria-hidden", "true");
    this.cells[0].tabIndex = 0;
    element.addEventListener("click", (event) => {
      const cell = this.cells.indexOf(event.target.closest(".cell"));
      if (cell >= 0) this.toggle(cell);
    });
    element.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.measure()).observe(element);
    this.show(this.drums);
  }

  /** Wide, a drum is one line; narrow, it is two, each of half of the bars. */
  buildRow(name, drum) {
    const { bars, stepsPerBar, steps, drums } = this.grid;
    const row = this.element.appendChild(document.createElement("div"));
    row.className = "row";
    row.setAttribute("role", "row");
    row.style.setProperty("--wide-line", drum + 1);
    row.style.setProperty("--hue", `var(--drum-${drum})`);
    const place = (half, className) => {
      const part = row.appendChild(document.createElement("div"));
      part.className = half && drum === 0 ? `${className} again-first` : className;
      part.style.setProperty("--narrow-line", drum + 1 + half * drums);
      return part;
    };
    for (const half of [0, 1]) {
      const label = place(half, half ? "label again" : "label");
      const short = { "closed hi-hat": "hi-hat", "open hi-hat": "open hat" }[name] ?? name;
      label.innerHTML = "<span class=long></span><span class=short></span>";
      [label.firstChild.textContent, label.lastChild.textContent] = [name, short];
      if (half) label.setAttribute("aria-hidden", "true");
      else label.setAttribute("role", "rowheader");
    }
    return Array.from({ length: steps }, (_, step) => {
      const bar = Math.floor(step / stepsPerBar);
      const half = Math.floor((2 * bar) / bars);
      const cell = place(half, step % (stepsPerBar / 4) ? "cell" : "cell beat");
      cell.setAttribute("role", "gridcell");
      cell.tabIndex = -1;
      const column = 2 + step + bar; // between bars there is a gap
      cell.style.setProperty("--wide-column", column);
      cell.style.setProperty("--narrow-column", column - half * (steps / 2 + bars / 2));
      cell.appendChild(document.createElement("i"));
      return cell;
    });
  }

  show(drums) {
    this.drums = drums;
    this.cells.forEach((element, cell) => {
      const velocity = drums.pianoRoll[cell];
      element.classList.toggle("hit", velocity > 0);
      element.setAttribute("aria-selected", velocity > 0);
      element.setAttribute("aria-label", this.describe(cell));
      if (!velocity) return;
      element.style.setProperty("--force", (velocity / 127).toFixed(3));
      element.style.setProperty("--timing", drums.timing[cell].toFixed(3));
    });
  }

  describe(cell) {
    const { steps, stepsPerBar } = this.grid;
    const [drum, step] = [Math.floor(cell / steps), cell % steps];
    const [bar, place] = [Math.floor(step / stepsPerBar), step % stepsPerBar];
    const [beat, part] = [Math.floor((4 * place) / stepsPerBar), place % (stepsPerBar / 4)];
    const parts = BEAT_PARTS[stepsPerBar / 4] ?? ["", "2nd", "3rd", "4th", "5th", "6th"];
    const where = `${this.names[drum]}, bar ${bar + 1}, beat ${beat + 1} ${parts[part] ?? ""}`.trim();
    const velocity = this.drums.pianoRoll[cell];
    if (!velocity) return `${where}: silent`;
    const percent = Math.round(100 * this.drums.timing[cell]);
    const timing = percent ? `, ${Math.abs(percent)} % of a step ${percent < 0 ? "early" : "late"}` : "";
    return `${where}: velocity ${velocity}${timing}`;
  }

  toggle(cell) {
    this.focus(cell);
    this.edit(cell, this.drums.pianoRoll[cell] ? 0 : 100);
  }

  /** Of all cells one can be reached by the tab key: that which had the focus last. */
  focus(cell) {
    this.element.querySelector("[tabindex='0']").tabIndex = -1;
    this.cells[cell].tabIndex = 0;
    this.cells[cell].focus({ preventScroll: true });
  }

  key(event) {
    const cell = this.cells.indexOf(event.target);
    const { steps, stepsPerBar, drums } = this.grid;
    const [drum, step] = [Math.floor(cell / steps), cell % steps];
    const clip = (value, count) => Math.min(Math.max(value, 0), count - 1);
    const moves = {
      ArrowLeft: [0, -1],
      ArrowRight: [0, 1],
      ArrowUp: [-1, 0],
      ArrowDown: [1, 0],
      PageUp: [0, -stepsPerBar],
      PageDown: [0, stepsPerBar],
      Home: [0, -steps],
      End: [0, steps],
    };
    const velocity = this.drums.pianoRoll[cell];
    const change = { "+": 10, "=": 10, "-": -10 }[event.key];
    if (moves[event.key]) {
      const [down, right] = moves[event.key];
      this.focus(clip(drum + down, drums) * steps + clip(step + right, steps));
    } else if (event.key === " " || event.key === "Enter") {
      this.toggle(cell);
    } else if (change && velocity) {
      this.edit(cell, Math.min(127, Math.max(1, velocity + change)));
    } else return;
    event.preventDefault();
  }

  measure() {
    const last = this.cells.at(-this.grid.steps);
    const height = last.offsetTop + last.offsetHeight - this.cells[0].offsetTop;
    this.places = this.cells.slice(0, this.grid.steps).map((cell) => ({
      left: cell.offsetLeft,
      top: cell.offsetTop,
      width: cell.offsetWidth,
    }));
    this.playhead.style.height = `${height}px`;
  }

  /** Moves the playhead to a place in steps since the start, or takes it away, and lights up hits. */
  follow(position, calm) {
    this.playhead.classList.toggle("on", position !== null && position >= 0);
    const before = this.followed ?? position;
    this.followed = position;
    if (position === null || position < 0) return;
    const inLoop = position % this.grid.steps;
    const place = this.places[Math.floor(inLoop)];
    const left = place.left + (calm ? 0 : inLoop % 1) * place.width;
    this.playhead.style.transform = `translate(${left}px, ${place.top}px)`;
    if (calm || position - before > 4) return;
    for (let step = Math.floor(before - 0.5); step <= position + 0.5; step++) {
      this.light(step, before, position);
    }
  }

  light(step, before, position) {
    const { steps, drums } = this.grid;
    for (let drum = 0; drum < drums; drum++) {
      const cell = drum * steps + ((step + steps) % steps);
      const onset = step + this.drums.timing[cell];
      if (!this.drums.pianoRoll[cell] || onset <= before || onset > position) continue;
      const mark = this.cells[cell].firstChild;
      const lit = { filter: "brightness(1.35) saturate(1.2)", opacity: 1, scale: "1.25 1.08" };
      mark.animate([lit, {}], { duration: 320, easing: "ease-out" });
    }
  }
}

/** A small picture of drums. */
function thumbnail(drums, grid) {
  const marks = hitsOf(drums, grid).map(
    ({ drum, step, velocity, timing }) =>
      `<rect x="${(step + timing).toFixed(2)}" y="${drum * 4}" width="0.9" height="3.2" rx="0.3" ` +
      `fill="var(--drum-${drum})" opacity="${(0.35 + velocity / 196).toFixed(2)}"/>`,
  );
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${grid.steps} ${grid.drums * 4}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  svg.innerHTML = marks.join("");
  return svg;
}

// ---------------------------------------------------------------------------------------------
// Addresses: a groove is its seed and settings, or else its hits, three bytes each.

export function packHits(drums, grid) {
  const bytes = hitsOf(drums, grid).flatMap(({ cell, velocity, timing }) => {
    const offset = Math.min(Math.round(timing * 128) + 64, 127);
    return bigEndian((cell << 14) | (velocity << 7) | offset, 3);
  });
  const text = btoa(String.fromCharCode(...bytes));
  return text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

export function unpackHits(text, grid) {
  const drums = silence(grid);
  const bytes = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  for (let i = 0; i + 2 < bytes.length; i += 3) {
    const bits = (bytes.charCodeAt(i) << 16) | (bytes.charCodeAt(i + 1) << 8) | bytes.charCodeAt(i + 2);
    const cell = bits >> 14;
    if (cell >= drums.pianoRoll.length) throw new RangeError("found a step beyond the last one");
    drums.pianoRoll[cell] = (bits >> 7) & 127;
    drums.timing[cell] = drums.pianoRoll[cell] ? ((bits & 127) - 64) / 128 : 0;
  }
  return drums;
}

// ---------------------------------------------------------------------------------------------
// The page.
//
// The drums come from a source: { kind: "seed", seed }, { kind: "pad", corners, x, y } between
// four grooves, { kind: "latents", latents, seed }, or { kind: "drums" }, hits that were edited,
// tapped, humanized or read. All but the last are generated anew when a setting changes.

const DEFAULT_BPM = 100;
const TASK_BUTTONS = ["humanize", "add"];
const TAPPED_BARS = 2;
const TAP_KEYS = { KeyF: ["tap-soft", 55], KeyJ: ["tap-loud", 105] };

const element = (id) => document.getElementById(id);
const newSeed = () => Math.floor(Math.random() * 1e6);

export class Page {
  constructor() {
    this.models = {};
    this.dot = { x: 0, y: 0 };
    this.generation = 0;
    this.plays = false;
    this.loaded = new Promise((resolve) => (this.setLoaded = resolve));
    this.player = new Player(() => ({ drums: this.drums, grid: this.grid, bpm: this.settings.bpm }));
  }

  async start() {
    startTheme();
    element("play").addEventListener("click", () => this.attempt(() => this.togglePlay()));
    this.tasks = await fetchJson("models/models.json");
    const model = await this.model("groove");
    model.part("decoder.onnx").catch(() => {}); // said when it is used
    const { drums, pitch_maps, attributes, styles } = model.description;
    this.grid = model.grid;
    this.pitchMap = pitch_maps.general_midi;
    this.drums = silence(this.grid);
    this.roll = new Roll(element("roll"), this.grid, drums, (...edit) => this.edit(...edit));
    this.buildSliders(attributes);
    this.buildStyles(styles);
    this.bind();
    this.showPad();
    this.frame();
    await this.readAddress();
    this.setLoaded();
    this.enable();
    await (this.corners ? this.pictureCorners() : this.newCorners());
  }

  /** The model of a task. */
  model(task) {
    if (!this.tasks.includes(task)) {
      return Promise.reject(new ModelError(`models: found no model for ${task} next to this page`));
    }
    this.models[task] ??= Model.load(`models/${task}`);
    this.models[task].catch(() => delete this.models[task]);
    return this.models[task];
  }

  // -- Controls

  bind() {
    const clicks = {
      new: () => this.newGroove(),
      vary: () => this.vary(),
      clear: () => this.setDrums(silence(this.grid), "An empty grid. Click to add hits."),
      midi: () => this.saveMidi(),
      wav: () => this.saveWav(),
      share: () => this.share(),
      open: () => element("file").click(),
      reset: () => this.resetAttributes(),
      corners: () => this.newCorners(),
      pin: () => this.pin(),
      record: () => (this.taps ? this.endTaps() : this.recordTaps()),
    };
    for (const task of TASK_BUTTONS) clicks[task] = () => this.transform(task);
    for (const [id, click] of Object.entries(clicks)) {
      element(id).addEventListener("click", () => this.attempt(click));
    }
    for (const name of ["bpm", "temperature"]) {
      element(name).addEventListener("input", (event) => {
        this.settings[name] = event.target.valueAsNumber;
        this.showSettings();
        if (name === "temperature") this.attempt(() => this.regenerate());
        else this.writeAddress();
      });
    }
    element("style").addEventListener("change", (event) => {
      this.settings.style = event.target.value;
      this.attempt(() => (this.source.kind === "seed" ? this.regenerate() : this.newGroove()));
    });
    element("windows").addEventListener("change", (event) => {
      this.setDrums(this.windows[event.target.value], "");
    });
    element("file").addEventListener("change", (event) => this.openFile(event.target.files[0]));
    addEventListener("popstate", () => this.attempt(() => this.readAddress()));
    this.bindPad();
    this.bindTaps();
    this.bindDrop();
    addEventListener("keydown", (event) => {
      if (event.key !== " " || event.target !== document.body || this.taps) return;
      event.preventDefault();
      this.togglePlay();
    });
  }

  enable() {
    const every = ["new", "vary", "clear", "midi", "wav", "share", "open", "corners", "pin"];
    for (const id of [...every, ...TASK_BUTTONS]) element(id).disabled = false;
    for (const id of TASK_BUTTONS) element(id).hidden = !this.tasks.includes(id);
    const tap = this.tasks.includes("tap");
    for (const id of ["record", "tap-soft", "tap-loud"]) element(id).disabled = !tap;
  }

  buildSliders(names) {
    for (const name of names) {
      const label = element("attributes").appendChild(document.createElement("label"));
      label.className = "field";
      const text = { mean_velocity: "loudness", hihat_density: "hi-hats" }[name] ?? name;
      label.innerHTML =
        "<span><span class=value aria-hidden=true></span></span>" +
        "<input type=range min=-3 max=3 step=0.1>";
      label.firstChild.prepend(`${text[0].toUpperCase()}${text.slice(1)} `);
      const input = label.lastChild;
      input.id = `attribute-${name}`;
      input.addEventListener("input", () => {
        this.settings.attributes[name] = input.valueAsNumber;
        this.showSettings();
        this.attempt(() => this.regenerate({ ofDrums: true }));
      });
    }
  }

  buildStyles(names) {
    element("style-field").hidden = !names.length;
    element("style").append(new Option("Any", ""), ...names.map((name) => new Option(name, name)));
  }

  showSettings() {
    const { bpm, temperature, style, attributes } = this.settings;
    setSlider("bpm", bpm, `${bpm} bpm`);
    setSlider("temperature", temperature, temperature.toFixed(2));
    element("style").value = style;
    for (const input of element("attributes").querySelectorAll("input")) {
      const strength = attributes[input.id.replace("attribute-", "")] ?? 0;
      setSlider(input.id, strength, (strength > 0 ? "+" : "") + strength.toFixed(1));
    }
  }

  say(text, isError = false) {
    element("status").textContent = text;
    element("status").classList.toggle("error", isError);
  }

  /** Says what goes wrong in something that a person asked for. */
  async attempt(action) {
    try {
      await action();
    } catch (error) {
      this.say(error.message, true);
      if (!(error instanceof ModelError || error instanceof MidiError)) throw error;
    }
  }

  /** Plays, as soon as there is something to play, or stops. */
  async togglePlay() {
    this.plays = !this.plays;
    element("play").dataset.plays = this.plays;
    element("play").setAttribute("aria-label", this.plays ? "Stop" : "Play");
    if (!this.plays) return this.player.stop();
    await this.player.open();
    await this.loaded;
    if (this.plays) this.player.start();
  }

  /** Draws what moves, once a frame. */
  frame() {
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const position = this.taps ? this.tapPosition() : this.player.heard();
    this.roll.follow(position, calm);
    requestAnimationFrame(() => this.frame());
  }

  // -- Grooves

  async newGroove(seed = newSeed()) {
    this.source = { kind: "seed", seed };
    await this.regenerate({ isNew: true });
  }

  async vary() {
    this.source = await this.variation();
    await this.regenerate({ isNew: true });
  }

  /** A source of drums near those that are shown. */
  async variation() {
    const model = await this.model("groove");
    const { latents } = await model.encode(this.drums);
    return { kind: "latents", latents, seed: newSeed() };
  }

  /** Generates the source's drums; where more is asked for meanwhile, only the last counts. */
  async regenerate({ isNew = false, ofDrums = false } = {}) {
    if (this.source.kind === "drums" && !ofDrums) return this.writeAddress();
    const generation = ++this.generation;
    const model = await this.model("groove");
    if (this.source.kind === "drums") this.source = await this.variation();
    const { source, settings } = this;
    await this.generating?.catch(() => {}); // said where it was asked for
    if (generation !== this.generation) return;
    this.generating = this.generate(model, source, settings);
    const drums = await this.generating;
    if (this.source.kind === "drums") return; // edited meanwhile
    this.show(drums);
    this.writeAddress(isNew);
    const what = { seed: `Groove ${source.seed}`, pad: "Between four grooves" };
    this.say(`${what[source.kind] ?? "A variation"}: ${hitsIn(drums)}.`);
  }

  async generate(model, source, { temperature, style, attributes }) {
    const { seed } = source;
    const latents =
      source.kind === "pad" ? await this.padLatents(source)
      : source.latents ?? (await model.drawLatents(seed, style));
    const moved = await model.addAttributes(latents, attributes);
    return model.decode(moved, { seed: seed ?? padSeed(source.corners), temperature });
  }

  async transform(task) {
    const generation = ++this.generation;
    const model = await this.model(task);
    const options = { seed: newSeed(), temperature: this.settings.temperature };
    this.say("The model is being loaded…");
    const drums = await model.transform(this.drums, options);
    if (generation !== this.generation) return; // something else was asked for meanwhile
    const done = { humanize: "Humanized", add: "Hi-hat added", tap: "Drums for your rhythm" };
    this.setDrums(drums, `${done[task]}: ${hitsIn(drums)}.`);
  }

  edit(cell, velocity) {
    const { pianoRoll, timing } = this.drums;
    const drums = { pianoRoll: pianoRoll.slice(), timing: timing.slice() };
    drums.pianoRoll[cell] = velocity;
    if (!velocity) drums.timing[cell] = 0;
    const isNew = this.source.kind !== "drums";
    const hint = this.tasks.includes("humanize") ? " Humanize gives it a drummer's touch." : "";
    this.setDrums(drums, `Edited: ${hitsIn(drums)}.${hint}`, isNew);
    if (velocity && this.player.context && !this.player.playing) {
      this.player.audition(Math.floor(cell / this.grid.steps), velocity);
    }
  }

  setDrums(drums, text, isNew = true) {
    this.generation++; // what is being generated comes too late
    this.source = { kind: "drums" };
    this.show(drums);
    this.writeAddress(isNew);
    if (text) this.say(text);
  }

  show(drums) {
    this.drums = drums;
    this.roll.show(drums);
  }

  resetAttributes() {
    this.settings.attributes = {};
    this.showSettings();
    return this.regenerate();
  }

  // -- Addresses

  writeAddress(isNew = false) {
    const { source, settings } = this;
    const fields = new URLSearchParams();
    if (source.kind === "seed") fields.set("seed", source.seed);
    else if (source.kind === "pad" && source.corners.every(Number.isInteger)) {
      fields.set("pad", [...source.corners, source.x.toFixed(3), source.y.toFixed(3)].join("~"));
    } else fields.set("drums", packHits(this.drums, this.grid));
    const { attributes, ...others } = settings;
    const named = fields.has("drums") ? { bpm: settings.bpm } : others;
    for (const [name, value] of Object.entries(named)) if (value !== "") fields.set(name, value);
    for (const [name, strength] of Object.entries(attributes)) {
      if (strength && !fields.has("drums")) fields.set(name, strength);
    }
    history[isNew && location.hash ? "pushState" : "replaceState"](null, "", `#${fields}`);
  }

  /** Plays what the address names; without any, a new groove. */
  async readAddress() {
    const fields = new URLSearchParams(location.hash.slice(1));
    const number = (name, least, most, otherwise) => {
      const value = Number.parseFloat(fields.get(name));
      return Number.isFinite(value) ? Math.min(Math.max(value, least), most) : otherwise;
    };
    const model = await this.model("groove");
    const { attributes, styles } = model.description;
    const style = fields.get("style") ?? "";
    this.settings = {
      bpm: number("bpm", 50, 200, DEFAULT_BPM),
      temperature: number("temperature", 0, 1.5, model.description.temperature),
      style: styles.includes(style) ? style : "",
      attributes: Object.fromEntries(attributes.map((name) => [name, number(name, -3, 3, 0)])),
    };
    this.showSettings();
    if (fields.has("drums")) {
      try {
        return this.setDrums(unpackHits(fields.get("drums"), this.grid), "A shared groove.", false);
      } catch (error) {
        await this.newGroove();
        return this.say(`address: found damaged drums (${error.message}), playing new ones`, true);
      }
    }
    const pad = (fields.get("pad") ?? "").split("~").map(Number);
    const corners = pad.slice(0, 4);
    if (pad.length === 6 && pad.every((value) => value >= 0) && corners.every(Number.isInteger)) {
      this.corners = corners;
      return this.movePad(pad[4], pad[5]);
    }
    this.source = { kind: "seed", seed: Math.floor(number("seed", 0, 2 ** 32 - 1, newSeed())) };
    return this.regenerate();
  }

  async share() {
    try {
      await navigator.clipboard.writeText(location.href);
      this.say("The link is copied: who opens it hears this groove.");
    } catch {
      this.say("The address of this page is the link: who opens it hears this groove.");
    }
  }

  // -- The pad between four grooves

  async padLatents({ corners, x, y }) {
    const model = await this.model("groove");
    const ends = await Promise.all(
      corners.map((corner) =>
        Number.isInteger(corner) ? model.drawLatents(corner, this.settings.style) : corner,
      ),
    );
    return interpolate(interpolate(ends[0], ends[1], x), interpolate(ends[2], ends[3], x), y);
  }

  /** Four new corners, the first of them the groove that plays if a seed made it. */
  async newCorners() {
    const first = this.source.kind === "seed" ? this.source.seed : newSeed();
    this.corners = [first, newSeed(), newSeed(), newSeed()];
    if (this.source.kind === "pad") await this.movePad(0, 0);
    await this.pictureCorners();
  }

  async pictureCorners() {
    const model = await this.model("groove");
    const pad = element("pad");
    const pictures = [];
    for (const [x, y] of [[0, 0], [1, 0], [0, 1], [1, 1]]) {
      const source = { kind: "pad", corners: this.corners, x, y };
      const drums = await this.generate(model, source, { ...this.settings, attributes: {} });
      pictures.push(thumbnail(drums, this.grid));
    }
    pad.querySelectorAll("svg").forEach((picture) => picture.remove());
    pad.prepend(...pictures);
  }

  async pin() {
    const nearest = 2 * (this.dot.y > 0.5) + (this.dot.x > 0.5);
    const { source } = this;
    const model = await this.model("groove");
    const { latents } = source.kind === "seed" ? {} : await model.encode(this.drums);
    this.corners = this.corners.with(nearest, latents ?? source.seed);
    await this.pictureCorners();
    this.say(`Pinned to the ${this.cornerName(nearest)} corner.`);
  }

  cornerName(corner) {
    return ["upper left", "upper right", "lower left", "lower right"][corner];
  }

  movePad(x, y) {
    this.dot = { x: Math.min(Math.max(x, 0), 1), y: Math.min(Math.max(y, 0), 1) };
    this.source = { kind: "pad", corners: this.corners, ...this.dot };
    this.showPad();
    return this.regenerate();
  }

  showPad() {
    const { x, y } = this.dot;
    element("dot").style.left = `calc(13px + ${x} * (100% - 26px))`;
    element("dot").style.top = `calc(13px + ${y} * (100% - 26px))`;
    const percent = [x, y].map((value) => Math.round(100 * value));
    element("pad").setAttribute("aria-valuenow", percent[0]);
    element("pad").setAttribute("aria-valuetext", `${percent[0]} % right, ${percent[1]} % down`);
  }

  bindPad() {
    const pad = element("pad");
    const move = (event) => {
      if (!this.corners || !event.buttons) return;
      const { left, top, width, height } = pad.getBoundingClientRect();
      const place = (at, start, size) => (at - start - 13) / (size - 26);
      const [x, y] = [place(event.clientX, left, width), place(event.clientY, top, height)];
      this.attempt(() => this.movePad(x, y));
    };
    pad.addEventListener("pointerdown", (event) => {
      pad.setPointerCapture(event.pointerId);
      move(event);
    });
    pad.addEventListener("pointermove", move);
    pad.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      const step = steps[event.key];
      if (!step || !this.corners) return;
      event.preventDefault();
      this.attempt(() => this.movePad(this.dot.x + step[0] / 10, this.dot.y + step[1] / 10));
    });
  }

  // -- Taps

  bindTaps() {
    for (const [code, [id, velocity]] of Object.entries(TAP_KEYS)) {
      element(id).addEventListener("pointerdown", (event) => this.tap(id, velocity, event));
      addEventListener("keydown", (event) => {
        if (event.code !== code || event.repeat || !this.taps) return;
        event.preventDefault();
        this.tap(id, velocity, event);
      });
    }
  }

  /** Four clicks, then two bars in which taps are heard. */
  async recordTaps() {
    if (this.plays) await this.togglePlay();
    await this.player.open();
    const stepSeconds = 240 / this.settings.bpm / this.grid.stepsPerBar;
    const start = this.player.context.currentTime + 0.15 + this.grid.stepsPerBar * stepSeconds;
    const steps = TAPPED_BARS * this.grid.stepsPerBar;
    this.taps = { start, stepSeconds, drums: silence(this.grid), bus: this.player.kit.bus() };
    for (let beat = -4; beat < 4 * TAPPED_BARS; beat++) {
      const time = start + (beat * this.grid.stepsPerBar * stepSeconds) / 4;
      this.player.kit.click(time, this.taps.bus, beat % 4 === 0);
    }
    this.show(this.taps.drums);
    this.say("Four clicks, then tap…");
    element("record").textContent = "Cancel";
    const seconds = start + (steps - 0.5) * stepSeconds - this.player.heardTime();
    this.taps.timer = setTimeout(() => this.attempt(() => this.endTaps(true)), 1000 * seconds);
    this.model("tap").then((model) => model.part("encoder.onnx")).catch(() => {}); // said later
  }

  tapPosition(now = performance.now()) {
    return (this.player.heardTime(now) - this.taps.start) / this.taps.stepSeconds;
  }

  tap(id, velocity, event) {
    const button = element(id);
    button.classList.add("struck");
    setTimeout(() => button.classList.remove("struck"), 120);
    if (!this.taps) return void this.player.open().then(() => this.player.audition(1, velocity));
    const { drums } = this.taps;
    const position = this.tapPosition(event.timeStamp);
    const step = Math.floor(position + 0.5);
    const length = TAPPED_BARS * this.grid.stepsPerBar;
    if (step < 0 || step > length) return;
    this.player.kit.hit(1, velocity, this.player.context.currentTime, this.taps.bus);
    for (let start = 0; start < this.grid.steps; start += length) {
      const cell = this.grid.steps + ((start + step) % this.grid.steps); // on the snare
      if (drums.pianoRoll[cell] >= velocity) continue;
      drums.pianoRoll[cell] = velocity;
      drums.timing[cell] = position - step;
    }
    this.show(drums);
  }

  async endTaps(whole = false) {
    const { drums, bus, timer } = this.taps;
    clearTimeout(timer);
    bus.disconnect();
    this.taps = null;
    element("record").textContent = "Start tapping";
    if (!whole) return this.setDrums(drums, "Cancelled.");
    if (!countHits(drums)) return this.setDrums(drums, "No tap was heard.");
    this.setDrums(drums, "");
    await this.transform("tap");
    if (!this.plays) await this.togglePlay();
  }

  // -- Files

  bindDrop() {
    const over = (on) => (event) => {
      event.preventDefault();
      document.body.classList.toggle("dropping", on);
    };
    addEventListener("dragover", over(true));
    addEventListener("dragleave", over(false));
    addEventListener("drop", (event) => {
      over(false)(event);
      this.openFile(event.dataTransfer.files[0]);
    });
  }

  openFile(file) {
    if (!file) return;
    return this.attempt(async () => {
      let midi;
      try {
        midi = readMidi(new Uint8Array(await file.arrayBuffer()), this.grid, this.pitchMap);
      } catch (error) {
        if (error instanceof MidiError) throw new MidiError(`${file.name}: ${error.message}`);
        throw error;
      }
      this.windows = midi.windows;
      const { bars } = this.grid;
      const options = midi.windows.map((_, i) => new Option(`${i * bars + 1} to ${(i + 1) * bars}`, i));
      element("windows").replaceChildren(...options);
      element("windows-field").hidden = options.length < 2;
      this.settings.bpm = Math.min(Math.max(Math.round(midi.bpm), 50), 200);
      this.showSettings();
      const first = midi.windows.findIndex((window) => countHits(window) > 0);
      element("windows").value = first;
      const notices = midi.notices.map((notice) => `; ${notice}`).join("");
      const hits = hitsIn(this.windows[first]);
      this.setDrums(this.windows[first], `${file.name}: ${hits} in four bars${notices}.`);
      element("file").value = "";
    });
  }

  saveMidi() {
    const bytes = writeMidi(this.drums, this.grid, this.settings.bpm, this.pitchMap);
    download(bytes, "audio/midi", `${this.fileName()}.mid`);
  }

  async saveWav() {
    const bytes = await renderWav(this.drums, this.grid, this.settings.bpm);
    download(bytes, "audio/wav", `${this.fileName()}.wav`);
  }

  fileName() {
    return this.source.kind === "seed" ? `groove-${this.source.seed}` : "groove";
  }
}

const counted = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
const countHits = (drums) => drums.pianoRoll.reduce((count, velocity) => count + (velocity > 0), 0);
const hitsIn = (drums) => counted(countHits(drums), "hit");
/** The seed of the draws between four grooves: that of the first, so that it sounds as it does alone. */
const padSeed = (corners) => corners.find(Number.isInteger) ?? 0;

function setSlider(id, value, text) {
  const input = element(id);
  input.value = value;
  input.setAttribute("aria-valuetext", text);
  input.closest("label").querySelector(".value").textContent = text;
  const [least, most] = [Number(input.min), Number(input.max)];
  const percent = (at) => `${(100 * (at - least)) / (most - least)}%`;
  const [from, to] = [value, least < 0 ? 0 : least].sort((a, b) => a - b).map(percent);
  const track = `var(--line) ${from}, var(--accent) ${from}, var(--accent) ${to}, var(--line) ${to}`;
  input.style.setProperty("--track", `linear-gradient(to right, ${track})`);
}

function download(bytes, type, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([bytes], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function startTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null; // pages in a frame may have no storage
    }
  };
  const show = () => {
    document.documentElement.dataset.theme = chosen() ?? (dark.matches ? "dark" : "light");
  };
  dark.addEventListener("change", show);
  element("theme").addEventListener("click", () => {
    const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("theme", theme);
    } catch {
      // it lasts as long as the page
    }
    document.documentElement.dataset.theme = theme;
  });
  show();
}

export const page = new Page();
/** Settles when the page can be used, or has said why it cannot. */
export const ready = page.attempt(() => page.start()).then(() => {
  element("play").disabled = !page.source;
});
