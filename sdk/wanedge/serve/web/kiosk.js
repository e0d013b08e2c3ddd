// The kiosk page: camera and microphone in, picture, voice and captions out.
//
// Keys: L shows latency and state, C captions, F full screen. A token for the server stands behind # in the address,
// as #token=..., where it is never sent and never logged.

import { Connection } from "./connection.js";
import { Camera, Microphone } from "./devices.js";
import { Player } from "./player.js";

const STRIP_EVERY_MS = 250;
const element = (id) => document.getElementById(id);

class Notices {
  // What is wrong now, in the words of whoever stands there; the first one that is set is shown.
  constructor(place) {
    this.place = place;
    this.texts = new Map();
  }

  set(name, text) {
    if (text) this.texts.set(name, text);
    else this.texts.delete(name);
    const [first] = this.texts.values();
    this.place.textContent = first ?? "";
    this.place.hidden = first === undefined;
  }
}

class Kiosk {
  async begin() {
    this.notices = new Notices(element("notice"));
    this.connection = new Connection(new URLSearchParams(location.hash.slice(1)).get("token"));
    this.state = "connecting";
    this.captions = true;
    if (!navigator.mediaDevices) {
      this.notices.set("secure", "Camera and microphone need https, or a page of this machine.");
      return;
    }
    this.context = new AudioContext({ sampleRate: 16000, latencyHint: "interactive" });
    await Promise.all(["/capture-worklet.js", "/playback-worklet.js"].map((url) => this.context.audioWorklet.addModule(url)));
    this.player = new Player(this.context, element("picture"), element("caption"), (ms) => this.connection.acknowledge(ms));
    this.microphone = new Microphone(this.context, (block) => {
      this.peak = block.peak;
      this.connection.sendAudio(block.startMs, block.pcm);
    });
    this.camera = new Camera(this.context, (jpeg, atMs) => this.connection.sendPicture(atMs, jpeg));
    this.listen();
    await this.askForSound();
    this.connection.open();
    this.microphone.open();
    this.camera.open();
  }

  listen() {
    const { connection, notices, player } = this;
    for (const [device, text] of [
      [this.microphone, "No microphone. Please ask the staff."],
      [this.camera, "No camera: I cannot see you."],
    ]) {
      device.addEventListener("open", () => notices.set(device.kind, ""));
      device.addEventListener("missing", () => notices.set(device.kind, text));
    }
    connection.addEventListener("state", ({ detail }) => {
      this.state = detail.state;
      notices.set("connection", detail.text);
    });
    connection.addEventListener("session", ({ detail }) => {
      const { video, user_video: user } = detail.session.wanedge;
      if (!detail.resumed) player.clear();
      player.setSize(video.width, video.height);
      this.camera.setSize(2 * user.width, 2 * user.height);
    });
    connection.addEventListener("unit", ({ detail }) => player.take(detail));
    connection.addEventListener("text", ({ detail }) => this.captions && player.addText(detail.delta, detail.startMs));
    connection.addEventListener("info", ({ detail }) => {
      this.info = detail.code;
    });
    document.addEventListener("keydown", (event) => this.press(event.key.toLowerCase()));
    setInterval(() => this.drawStrip(), STRIP_EVERY_MS);
  }

  // A browser that was not started for a kiosk plays sound only after a touch.
  async askForSound() {
    const running = Promise.race([
      this.context.resume().then(() => true),
      new Promise((resolve) => setTimeout(() => resolve(false), 400)),
    ]);
    if (await running) return;
    element("start").hidden = false;
    element("begin").focus();
    await new Promise((resolve) => element("begin").addEventListener("click", resolve, { once: true }));
    await this.context.resume();
    element("start").hidden = true;
    document.documentElement.requestFullscreen?.().catch(() => {});
  }

  press(key) {
    if (key === "l") element("strip").hidden = !element("strip").hidden;
    if (key === "f" && !document.fullscreenElement) document.documentElement.requestFullscreen?.().catch(() => {});
    else if (key === "f") document.exitFullscreen();
    if (key === "c") {
      this.captions = !this.captions;
      if (!this.captions) element("caption").hidden = true;
    }
  }

  // For the strip, for tests and for whoever watches a kiosk from outside.
  status() {
    return {
      state: this.state,
      agent: this.player?.state,
      contextMs: this.context?.currentTime * 1000,
      mediaMs: this.player?.mediaMs ?? null,
      session: this.connection.sessionId,
      latency: { ...this.player?.latency },
      playback: { ...this.player?.position },
      pictures: { ...this.player?.shown },
      connection: { ...this.connection.counts },
      microphone: { on: this.microphone?.track !== null, peak: this.peak, ...this.microphone?.counts },
      camera: { on: this.camera?.track !== null, ...this.camera?.counts },
      caption: element("caption").hidden ? "" : element("caption").textContent,
      notice: element("notice").hidden ? "" : element("notice").textContent,
      info: this.info ?? null,
    };
  }

  drawStrip() {
    if (element("strip").hidden) return;
    const { state, agent, latency, playback, pictures, connection, microphone, camera } = this.status();
    const ms = (value) => (Number.isFinite(value) ? `${value.toFixed(0)} ms` : "–");
    const rows = [
      ["connection", `${state}, ${connection.resumed} resumed`],
      ["agent", agent],
      ["heard to answer", ms(latency.totalMs)],
      ["  model", ms(latency.modelMs)],
      ["  transport", ms(latency.transportMs)],
      ["  buffer", ms(latency.bufferMs)],
      ["  loudspeaker", ms(latency.outputMs)],
      ["slack wanted", ms(playback.targetMs)],
      ["dry, cut", `${playback.dry ?? 0}, ${ms(playback.cutMs)}`],
      ["lips after voice", ms(pictures.voiceToLipsMs)],
      ["microphone", microphone.on ? (microphone.peak ?? 0).toFixed(2) : "missing"],
      ["camera", camera.on ? "on" : "missing"],
    ];
    element("values").replaceChildren(
      ...rows.flatMap(([name, value]) => {
        const term = document.createElement("dt");
        const data = document.createElement("dd");
        term.textContent = name;
        data.textContent = value;
        return [term, data];
      }),
    );
  }
}

const kiosk = new Kiosk();
globalThis.wanedge = { status: () => kiosk.status() };
kiosk.begin().catch((error) => {
  console.error(error);
  kiosk.notices.set("failed", "This page could not start. Please ask the staff.");
});
