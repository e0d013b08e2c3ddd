// Voice and lips by one clock: the media time of the sample that leaves the loudspeaker. Pictures and captions wait for it.

const MAX_PICTURES = 100;
const REMEMBERED = 64; // units, for their times
const CAPTION_S = 6; // without another word
const DIRECTIONS = /\([^)]*\)?/g; // "(waves) Hello!": what is done is seen, what is said is written

export class Player {
  // onPlayed(endMs): everything up to that media time left the loudspeaker.
  constructor(context, canvas, caption, onPlayed) {
    this.context = context;
    this.canvas = canvas;
    this.pen = canvas.getContext("2d", { alpha: false });
    this.caption = caption;
    this.onPlayed = onPlayed;
    this.node = new AudioWorkletNode(context, "playback", { numberOfInputs: 0, outputChannelCount: [1] });
    this.node.connect(context.destination);
    this.node.port.onmessage = (message) => this.follow(message.data);
    this.position = null;
    this.pictures = []; // {mediaMs, bitmap, madeMs}
    this.words = []; // {delta, startMs}
    this.units = new Map(); // start of a unit -> its times
    this.line = "";
    this.spokenMs = 0;
    this.state = "<idle>";
    this.latency = {}; // of the unit heard last, in ms
    this.shown = { pictures: 0, late: 0, voiceToLipsMs: 0, madeToPixelMs: 0 };
    this.played = 0;
    const draw = () => {
      this.draw();
      requestAnimationFrame(draw);
    };
    requestAnimationFrame(draw);
  }

  setSize(width, height) {
    if (this.canvas.width === width && this.canvas.height === height) return;
    this.canvas.width = width;
    this.canvas.height = height;
  }

  // Forget what was not played: another session, with a media time of its own, begins.
  clear() {
    this.node.port.postMessage({ clear: true });
    for (const picture of this.pictures) picture.bitmap.close();
    this.pictures = [];
    this.words = [];
    this.units.clear();
    this.position = null;
    this.played = 0;
  }

  take(unit) {
    this.state = unit.state;
    const arrivedMs = this.context.currentTime * 1000;
    this.units.set(unit.startMs, { ...unit, arrivedMs, pcm: null, pictures: null });
    if (this.units.size > REMEMBERED) this.units.delete(this.units.keys().next().value);
    this.node.port.postMessage({ pcm: unit.pcm, startMs: unit.startMs }, [unit.pcm.buffer]);
    unit.pictures.forEach((jpeg, index) => {
      const mediaMs = unit.startMs + (160 * index) / unit.pictures.length;
      this.decode(jpeg, mediaMs, unit.sentMs);
    });
  }

  async decode(jpeg, mediaMs, madeMs) {
    try {
      const bitmap = await createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }));
      this.shown.decodedMs = Date.now() - madeMs;
      this.pictures.push({ mediaMs, bitmap, madeMs });
      this.pictures.sort((a, b) => a.mediaMs - b.mediaMs);
      while (this.pictures.length > MAX_PICTURES) this.pictures.shift().bitmap.close();
    } catch (error) {
      console.warn("a picture could not be decoded:", error.message);
    }
  }

  addText(delta, startMs) {
    this.words.push({ delta, startMs });
  }

  // Media time of what is heard now, or null.
  get mediaMs() {
    if (this.position === null || this.position.mediaMs === null) return null;
    if (!this.position.playing) return this.position.mediaMs;
    const elapsedMs = this.context.currentTime * 1000 - this.position.contextMs;
    return this.position.mediaMs + elapsedMs - this.outputMs;
  }

  get outputMs() {
    return (this.context.outputLatency || this.context.baseLatency || 0) * 1000;
  }

  follow(position) {
    this.position = position;
    if (!position.playing || position.mediaMs === null) return;
    const startMs = Math.floor(position.mediaMs / 160) * 160;
    const unit = this.units.get(startMs);
    if (unit && !unit.begun) {
      unit.begun = true;
      const playedMs = position.contextMs - (position.mediaMs - startMs); // context time of the unit's first sample
      this.latency = {
        unitMs: unit.unit,
        totalMs: playedMs + this.outputMs - unit.heardMs,
        modelMs: unit.modelMs,
        transportMs: unit.arrivedMs - unit.heardMs - unit.modelMs,
        bufferMs: playedMs - unit.arrivedMs,
        outputMs: this.outputMs,
      };
      if (startMs > this.played) {
        this.played = startMs;
        this.onPlayed(startMs);
      }
    }
  }

  draw() {
    const now = this.mediaMs;
    if (now === null) return;
    let due = null;
    while (this.pictures.length && this.pictures[0].mediaMs <= now) {
      if (due) {
        due.bitmap.close();
        this.shown.late += 1;
      }
      due = this.pictures.shift();
    }
    if (due) {
      this.pen.drawImage(due.bitmap, 0, 0, this.canvas.width, this.canvas.height);
      due.bitmap.close();
      this.shown.pictures += 1;
      this.shown.voiceToLipsMs = now - due.mediaMs;
      this.shown.madeToPixelMs = Date.now() - due.madeMs;
    }
    this.drawCaption(now);
  }

  drawCaption(now) {
    while (this.words.length && this.words[0].startMs <= now) {
      const word = this.words.shift();
      if (word.startMs - this.spokenMs > 1500) this.line = "";
      this.line += word.delta;
      this.spokenMs = word.startMs;
      const text = this.line.replace(DIRECTIONS, " ").replace(/\s+/g, " ").trim();
      this.caption.textContent = text.length > 140 ? `…${text.slice(-140)}` : text;
      this.caption.hidden = text === "";
    }
    if (!this.caption.hidden && now - this.spokenMs > CAPTION_S * 1000) {
      this.caption.hidden = true;
      this.line = "";
    }
  }
}
