// Microphone -> blocks of 20 ms of int16. It never stops: without a microphone it sends silence, so that the stream
// keeps its pace and the server its answers.

const BLOCK_S = 0.02;

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.size = Math.round(sampleRate * BLOCK_S);
    this.block = new Int16Array(this.size);
    this.filled = 0;
    this.peak = 0;
  }

  process(inputs) {
    const channel = inputs[0][0];
    const count = channel ? channel.length : 128;
    for (let i = 0; i < count; i += 1) {
      const value = channel ? Math.max(-1, Math.min(1, channel[i])) : 0;
      this.peak = Math.max(this.peak, Math.abs(value));
      this.block[this.filled] = Math.round(value * 32767);
      this.filled += 1;
      if (this.filled === this.size) {
        const startMs = ((currentFrame + i + 1 - this.size) / sampleRate) * 1000;
        this.port.postMessage({ pcm: this.block, startMs, peak: this.peak }, [this.block.buffer]);
        this.block = new Int16Array(this.size);
        this.filled = 0;
        this.peak = 0;
      }
    }
    return true;
  }
}

registerProcessor("capture", Capture);
