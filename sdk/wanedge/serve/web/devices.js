// Camera and microphone, each by itself: one may be missing or pulled out while the other goes on. A device that is lost
// is looked for again, at once when the browser says that devices changed, and every few seconds.

const AGAIN_MS = [200, 500, 1000, 2000, 3000];
const PICTURE_EVERY_MS = 40;

class Device extends EventTarget {
  constructor(kind, constraints) {
    super();
    this.kind = kind;
    this.constraints = constraints;
    this.track = null;
    this.tries = 0;
    this.timer = 0;
    this.counts = { opened: 0, lost: 0 };
    navigator.mediaDevices.addEventListener("devicechange", () => this.retry(0));
  }

  async open() {
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ [this.kind]: this.constraints });
      const [track] = stream.getTracks();
      track.addEventListener("ended", () => this.lose());
      this.track = track;
      this.tries = 0;
      this.counts.opened += 1;
      this.dispatchEvent(new CustomEvent("open", { detail: stream }));
    } catch (error) {
      this.dispatchEvent(new CustomEvent("missing", { detail: error }));
      this.retry(AGAIN_MS[Math.min(this.tries, AGAIN_MS.length - 1)]);
      this.tries += 1;
    }
  }

  lose() {
    this.track = null;
    this.counts.lost += 1;
    this.dispatchEvent(new CustomEvent("missing", { detail: new Error("the device was lost") }));
    this.retry(AGAIN_MS[0]);
  }

  retry(afterMs) {
    if (this.track !== null) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.track === null && this.open(), afterMs);
  }
}

export class Microphone extends Device {
  // Calls onBlock({pcm, startMs, peak}) every 20 ms for as long as the page lives.
  constructor(context, onBlock) {
    super("audio", { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 });
    this.context = context;
    this.source = null;
    this.node = new AudioWorkletNode(context, "capture", { numberOfOutputs: 1, channelCount: 1 });
    this.node.port.onmessage = (message) => onBlock(message.data);
    const silent = new GainNode(context, { gain: 0 }); // a node that leads nowhere is not run
    this.node.connect(silent).connect(context.destination);
    this.addEventListener("open", (event) => {
      this.source?.disconnect();
      this.source = context.createMediaStreamSource(event.detail);
      this.source.connect(this.node);
    });
    this.addEventListener("missing", () => {
      this.source?.disconnect();
      this.source = null;
    });
  }
}

export class Camera extends Device {
  // Calls onPicture(Uint8Array of a JPEG, context time in ms) for every new picture, at most 25 a second.
  constructor(context, onPicture) {
    super("video", { width: { ideal: 320 }, height: { ideal: 240 }, frameRate: { ideal: 25 } });
    this.context = context;
    this.onPicture = onPicture;
    this.video = document.createElement("video");
    this.video.muted = true;
    this.video.playsInline = true;
    this.canvas = document.createElement("canvas");
    this.pen = this.canvas.getContext("2d", { alpha: false, willReadFrequently: true });
    this.setSize(192, 128);
    this.lastTime = -1;
    this.encoding = false;
    this.addEventListener("open", (event) => {
      this.video.srcObject = event.detail;
      this.video.play().catch((error) => console.warn("the camera's picture does not play:", error.message));
    });
    this.addEventListener("missing", () => {
      this.video.srcObject = null;
    });
    setInterval(() => this.look(), PICTURE_EVERY_MS);
  }

  setSize(width, height) {
    this.canvas.width = width;
    this.canvas.height = height;
  }

  async look() {
    const { video, canvas } = this;
    const width = video.videoWidth;
    const height = video.videoHeight;
    if (this.track === null || this.encoding || !width || video.currentTime === this.lastTime) return;
    this.lastTime = video.currentTime;
    this.encoding = true;
    try {
      const atMs = this.context.currentTime * 1000;
      const scale = Math.min(width / canvas.width, height / canvas.height); // the centre, in the model's aspect
      const [w, h] = [canvas.width * scale, canvas.height * scale];
      this.pen.drawImage(video, (width - w) / 2, (height - h) / 2, w, h, 0, 0, canvas.width, canvas.height);
      const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.85));
      if (blob) this.onPicture(new Uint8Array(await blob.arrayBuffer()), atMs);
    } finally {
      this.encoding = false;
    }
  }
}
