// The agent's voice -> loudspeaker, at a steady and small delay.
//
// Units arrive every 160 ms, give or take. What is left in the buffer when the next one arrives is the slack; it has to
// cover that give or take and no more, because every millisecond of it is heard as a slower answer. So there is a target
// for the slack. It grows when the buffer ran dry and shrinks slowly while all is well. When more is buffered for a
// while, after a stall or at the start, the quietest stretch that is long enough is left out, with a short cross-fade.

const FIRST_TARGET_MS = 30;
const MIN_TARGET_MS = 20;
const MAX_TARGET_MS = 240;
const GROW_MS = 20;
const SHRINK_MS = 2; // every SHRINK_EVERY_S without a dry buffer
const SHRINK_EVERY_S = 5;
// Slack beyond the target that is cut, and for how long it must have been there: much of it soon, little of it only when
// many arrivals say so, because arrivals vary.
const EXCESSES = [
  { ms: 90, seconds: 0.6 },
  { ms: 20, seconds: 2.5 },
];
const UNIT_MS = 160;
const FADE_MS = 8;
const CAPACITY_S = 4;
const REPORT_S = 0.016;

class Playback extends AudioWorkletProcessor {
  constructor() {
    super();
    this.ms = sampleRate / 1000; // samples of a millisecond
    this.data = new Float32Array(Math.round(CAPACITY_S * sampleRate));
    this.count = 0; // samples buffered, from index 0
    this.marks = []; // {at, mediaMs}: media time of a sample index; ascending
    this.arrivals = []; // {frame, slackMs}
    this.targetMs = FIRST_TARGET_MS;
    this.startFrame = null; // when playing may begin
    this.playing = false;
    this.mediaMs = null; // of the next sample
    this.dryFrame = 0;
    this.settledFrame = 0;
    this.reported = 0;
    this.stats = { dry: 0, cuts: 0, cutMs: 0 };
    this.port.onmessage = (message) => this.take(message.data);
  }

  take(message) {
    if (message.clear) {
      this.count = 0;
      this.marks = [];
      this.settle();
      this.playing = false;
      this.startFrame = null;
      return;
    }
    const pcm = message.pcm;
    const slackMs = this.playing ? this.count / this.ms : 0;
    if (this.count + pcm.length > this.data.length) this.remove(0, this.count + pcm.length - this.data.length);
    for (let i = 0; i < pcm.length; i += 1) this.data[this.count + i] = pcm[i] / 32768;
    this.marks.push({ at: this.count, mediaMs: message.startMs });
    this.count += pcm.length;
    if (this.playing) this.arrivals.push({ frame: currentFrame, slackMs });
    else if (this.startFrame === null) this.startFrame = currentFrame + this.targetMs * this.ms;
    this.catchUp();
  }

  catchUp() {
    // A burst after a stall: far more than two units. Go on near its end at once.
    let excess = this.count / this.ms - (this.targetMs + 2 * UNIT_MS);
    if (excess > 0) {
      this.cut(excess + UNIT_MS);
      return;
    }
    const longest = EXCESSES.at(-1).seconds;
    this.arrivals = this.arrivals.filter((arrival) => currentFrame - arrival.frame <= longest * sampleRate);
    for (const { ms, seconds } of EXCESSES) {
      const began = currentFrame - seconds * sampleRate;
      if (this.settledFrame > began) return;
      const slacks = this.arrivals.filter((arrival) => arrival.frame >= began).map((arrival) => arrival.slackMs);
      excess = Math.min(...slacks) - this.targetMs;
      if (slacks.length >= 3 && excess > ms) {
        this.cut(excess);
        return;
      }
    }
  }

  // Leave out `ms`, at the quietest place.
  cut(ms) {
    const size = Math.min(Math.round(ms * this.ms), this.count);
    const step = Math.round(10 * this.ms);
    const fade = Math.round(FADE_MS * this.ms);
    let best = 0;
    let least = Infinity;
    for (let start = 0; start + size + fade <= this.count; start += step) {
      let energy = 0;
      for (let i = start; i < start + size; i += 4) energy += this.data[i] * this.data[i];
      if (energy < least) {
        least = energy;
        best = start;
      }
    }
    for (let i = 0; i < fade && best + size + i < this.count; i += 1) {
      const share = (i + 1) / (fade + 1);
      const target = best + size + i;
      this.data[target] = share * this.data[target] + (1 - share) * this.data[best + i];
    }
    this.remove(best, size);
    this.settle();
    this.stats.cuts += 1;
    this.stats.cutMs += size / this.ms;
  }

  // What arrived so far says nothing about the slack from now on.
  settle() {
    this.arrivals = [];
    this.settledFrame = currentFrame;
  }

  // Take samples [start, start + size) out, with their media time.
  remove(start, size) {
    const resumed = this.mediaTime(start + size);
    this.data.copyWithin(start, start + size, this.count);
    this.count -= size;
    this.marks = [
      ...this.marks.filter((mark) => mark.at < start),
      { at: start, mediaMs: resumed },
      ...this.marks.filter((mark) => mark.at > start + size).map((mark) => ({ ...mark, at: mark.at - size })),
    ];
  }

  mediaTime(index) {
    let last = null;
    for (const mark of this.marks) {
      if (mark.at > index) break;
      last = mark;
    }
    return last === null ? this.mediaMs : last.mediaMs + (index - last.at) / this.ms;
  }

  process(_inputs, outputs) {
    const output = outputs[0][0];
    if (!this.playing && this.startFrame !== null && currentFrame >= this.startFrame) {
      this.playing = true;
      this.startFrame = null;
      this.settle();
    }
    if (this.playing) this.play(output);
    if (currentFrame - this.reported >= REPORT_S * sampleRate) this.report();
    return true;
  }

  play(output) {
    const count = Math.min(output.length, this.count);
    output.set(this.data.subarray(0, count));
    this.mediaMs = this.mediaTime(count);
    this.data.copyWithin(0, count, this.count);
    this.count -= count;
    const marks = this.marks.map((mark) => ({ ...mark, at: mark.at - count }));
    const passed = marks.filter((mark) => mark.at <= 0);
    this.marks = [...passed.slice(-1), ...marks.filter((mark) => mark.at > 0)];
    if (count < output.length) {
      this.playing = false;
      this.startFrame = null;
      this.marks = [];
      this.stats.dry += 1;
      this.targetMs = Math.min(this.targetMs + GROW_MS, MAX_TARGET_MS);
      this.dryFrame = currentFrame;
    } else if (currentFrame - this.dryFrame > SHRINK_EVERY_S * sampleRate) {
      this.targetMs = Math.max(this.targetMs - SHRINK_MS, MIN_TARGET_MS);
      this.dryFrame = currentFrame;
    }
  }

  report() {
    this.reported = currentFrame;
    this.port.postMessage({
      playing: this.playing,
      mediaMs: this.mediaMs,
      contextMs: ((currentFrame + 128) / sampleRate) * 1000,
      bufferedMs: this.count / this.ms,
      targetMs: this.targetMs,
      ...this.stats,
    });
  }
}

registerProcessor("playback", Playback);
