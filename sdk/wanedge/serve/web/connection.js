// One session over WebSockets that come and go. The socket is opened again at once when it is lost, and the session is
// resumed; when the server does not know it any more, another one is started.

const STATES = ["<idle>", "<listen>", "<speak>", "<stop>"];
const FIRST_WAIT_MS = 60;
const MAX_WAIT_MS = 2000;
const BUSY_WAIT_MS = 3000;
const QUIET_MS = 4000; // without a word from the server: the socket is dead, whatever it says
const HEARTBEAT_MS = 1500;
const MAX_UNSENT_BYTES = 200_000; // media beyond that would only arrive late
const AUDIO = 1;
const PICTURE = 2;
const UNIT = 16;

export class Connection extends EventTarget {
  // Events: "state" {state, text}, "session" {session, resumed}, "unit" {...}, "text" {delta, startMs}, "info" {code, message}.
  constructor(token) {
    super();
    this.token = token;
    this.sessionId = null;
    this.socket = null;
    this.ready = false;
    this.waitMs = FIRST_WAIT_MS;
    this.sequence = 0;
    this.heardMs = 0; // when the server last said something
    this.counts = { opened: 0, resumed: 0, started: 0, unsent: 0 };
    setInterval(() => this.watch(), HEARTBEAT_MS / 3);
  }

  open() {
    const url = new URL("/v1/live/sessions", location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const protocols = ["wanedge.v1", ...(this.token ? [`wanedge.token.${this.token}`] : [])];
    const socket = new WebSocket(url, protocols);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.heardMs = performance.now();
    socket.onopen = () => {
      this.counts.opened += 1;
      if (this.sessionId) this.send({ type: "session.resume", session_id: this.sessionId });
      else this.start();
    };
    socket.onmessage = (message) => {
      if (socket === this.socket) this.take(message.data);
    };
    socket.onclose = (event) => {
      if (socket === this.socket) this.lost(event);
    };
  }

  start() {
    const wanedge = { binary: true, output_video: true };
    this.send({ type: "session.start", session: { model: "kiosk", wanedge } });
  }

  send(event) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(event));
  }

  sendMedia(kind, atMs, bytes) {
    if (!this.ready || this.socket.readyState !== WebSocket.OPEN) return;
    if (this.socket.bufferedAmount > MAX_UNSENT_BYTES) {
      this.counts.unsent += 1;
      return;
    }
    const message = new Uint8Array(16 + bytes.byteLength);
    const view = new DataView(message.buffer);
    view.setUint8(0, kind);
    view.setUint32(4, (this.sequence += 1), true);
    view.setFloat64(8, atMs, true);
    message.set(bytes, 16);
    this.socket.send(message);
  }

  sendAudio(startMs, pcm) {
    this.sendMedia(AUDIO, startMs, new Uint8Array(pcm.buffer, pcm.byteOffset, pcm.byteLength));
  }

  sendPicture(atMs, jpeg) {
    this.sendMedia(PICTURE, atMs, jpeg);
  }

  acknowledge(endMs) {
    if (this.ready) this.send({ type: "session.playback.ack", end_ms: endMs });
  }

  take(data) {
    this.heardMs = performance.now();
    if (data instanceof ArrayBuffer) {
      this.tell("unit", readUnit(data));
      return;
    }
    const event = JSON.parse(data);
    switch (event.type) {
      case "session.started":
      case "session.resumed": {
        const resumed = event.type === "session.resumed";
        this.counts[resumed ? "resumed" : "started"] += 1;
        this.sessionId = event.session.id;
        this.ready = true;
        this.waitMs = FIRST_WAIT_MS;
        this.tell("state", { state: "open", text: "" });
        this.tell("session", { session: event.session, resumed });
        break;
      }
      case "session.output_transcript.delta":
        this.tell("text", { delta: event.delta, startMs: event.start_ms });
        break;
      case "session.closed":
        this.sessionId = null;
        break;
      case "error":
        this.fail(event.error);
        break;
      case "info":
        this.tell("info", event);
        break;
      default:
        break; // an event of a newer server
    }
  }

  fail(error) {
    if (error.code === "session_not_found") {
      this.sessionId = null;
      this.start();
    } else if (error.code === "session_limit") {
      this.waitMs = BUSY_WAIT_MS;
      this.tell("state", { state: "busy", text: "All places are taken. One moment, please." });
    } else {
      if (error.code === "session_failed") this.sessionId = null;
      console.error("the server refused an event:", error.code, error.message);
    }
  }

  lost(event) {
    this.ready = false;
    this.socket = null;
    if (event?.code === 4001) {
      this.tell("state", { state: "replaced", text: "This conversation goes on in another window." });
      return;
    }
    if (this.waitMs !== BUSY_WAIT_MS) this.tell("state", { state: "lost", text: "Connecting…" });
    setTimeout(() => this.open(), this.waitMs);
    this.waitMs = this.waitMs === BUSY_WAIT_MS ? FIRST_WAIT_MS : Math.min(this.waitMs * 2, MAX_WAIT_MS);
  }

  watch() {
    if (this.socket === null) return;
    const quietMs = performance.now() - this.heardMs;
    if (quietMs > QUIET_MS) {
      const socket = this.socket;
      this.lost();
      socket.close();
    } else if (quietMs > HEARTBEAT_MS && this.ready) {
      this.send({ type: "session.heartbeat" });
    }
  }

  tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

// One unit of the agent; the layout is in docs/serve.md.
function readUnit(buffer) {
  const view = new DataView(buffer);
  if (view.getUint8(0) !== UNIT) throw new Error(`unknown message ${view.getUint8(0)}`);
  const count = view.getUint8(2);
  let at = 36 + 4 * (1 + count);
  const parts = [];
  for (let i = 0; i <= count; i += 1) {
    const size = view.getUint32(36 + 4 * i, true);
    parts.push(buffer.slice(at, at + size));
    at += size;
  }
  return {
    state: STATES[view.getUint8(1)],
    unit: view.getUint32(4, true),
    startMs: view.getFloat64(8, true),
    heardMs: view.getFloat64(16, true),
    modelMs: view.getFloat32(24, true),
    sentMs: view.getFloat64(28, true),
    pcm: new Int16Array(parts[0]),
    pictures: parts.slice(1),
  };
}
