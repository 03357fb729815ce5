// Uploads files one by one, with a drop zone, a progress bar and a button to cancel. Without it, the form sends all at once.

import { csrfHeaders } from "./app.js";

const form = document.getElementById("upload");
const input = form.querySelector("input[type=file]");
const zone = form.querySelector(".dropzone");
const results = document.getElementById("upload-results");
const progress = form.querySelector(".progress");
const bar = progress.querySelector("progress");
const percent = progress.querySelector("output");
const maxBytes = Number(form.dataset.maxBytes);
let running = null; // the AbortController of the uploads under way

function report(name, text, kind) {
  const line = document.createElement("p");
  line.className = kind;
  line.textContent = `${name}: ${text}`;
  results.append(line);
}

function advance(bytes) {
  bar.value = bytes;
  percent.textContent = `${Math.floor((100 * bar.value) / bar.max)} %`;
}

/** Send one request and return its XMLHttpRequest, even if it failed (status 0: no response). */
function send(method, url, { headers = {}, body = null, type = "json", onProgress = null, signal = null } = {}) {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open(method, url);
    request.responseType = type;
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    if (onProgress) request.upload.addEventListener("progress", onProgress);
    request.addEventListener("loadend", () => resolve(request));
    // Once all is sent, the server may have stored it, and only its answer tells: too late to abort.
    let sent = false;
    request.upload.addEventListener("load", () => (sent = true));
    signal?.addEventListener("abort", () => sent || request.abort());
    request.send(body);
  });
}

async function upload(file, signal) {
  if (signal.aborted) return "cancelled.";
  if (file.size > maxBytes) return `This file is too large: the maximum is ${Math.floor(maxBytes / 2 ** 20)} MiB.`;
  const body = new FormData();
  body.append(input.name, file);
  const headers = { Accept: "application/json", ...csrfHeaders(form.action) };
  const before = bar.value;
  const onProgress = (event) => advance(before + (event.loaded / event.total) * file.size);
  const answer = await send("POST", form.action, { headers, body, onProgress, signal });
  advance(before + file.size);
  if (answer.status === 201) return "";
  if (answer.status === 0 && signal.aborted) return "cancelled.";
  return answer.response?.detail ?? "The upload failed. Please try again.";
}

async function refreshList() {
  // The browser parses the page itself: no string becomes markup, so Trusted Types has nothing to block.
  const page = (await send("GET", location.href, { type: "document" })).response;
  const fresh = page?.getElementById("files");
  if (fresh) document.getElementById("files").replaceWith(document.adoptNode(fresh));
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (running) return;
  running = new AbortController();
  const files = [...input.files];
  results.replaceChildren();
  bar.max = files.reduce((sum, file) => sum + file.size, 0) || 1;
  advance(0);
  progress.hidden = false;
  for (const file of files) {
    const fault = await upload(file, running.signal);
    report(file.name, fault || "uploaded.", fault ? "failed" : "done");
  }
  await refreshList();
  progress.hidden = true;
  input.value = "";
  running = null;
});

progress.querySelector("button").addEventListener("click", () => {
  running?.abort();
  form.querySelector("[type=submit]").focus(); // the button that had the focus disappears
});

document.getElementById("drop-hint").hidden = false;
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  zone.addEventListener(name, (event) => {
    event.preventDefault();
    zone.classList.toggle("over", name === "dragenter" || name === "dragover");
  });
}
zone.addEventListener("drop", (event) => {
  if (!event.dataTransfer.files.length || running) return;
  input.files = event.dataTransfer.files;
  form.requestSubmit();
});
