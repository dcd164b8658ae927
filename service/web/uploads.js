/** Files on their way into the library: sent two at a time, then followed as jobs until they end. */

import * as api from "./api.js";
import { byId, fromTemplate } from "./dom.js";
import { bytes, many } from "./format.js";

const SENDING_AT_ONCE = 2;
const ROWS = 30;
const ASKED_AT_ONCE = 4;
const POLL_MS = 700;

const list = byId("job-list");
const waiting = []; // entries not sent yet
const followed = new Map(); // job id -> entry
let numSending = 0;
let isPolling = false;
let onIndexed = () => {};

const STAGES = { queued: "Waiting", probe: "Looking at the file", encode: "Indexing", publish: "Nearly done", done: "Done" };

export function setUp({ onIndexed: given }) {
  onIndexed = given;
  byId("activity-clear").addEventListener("click", clearFinished);
}

/** Queue files for sending. */
export function add(files) {
  for (const file of files) {
    const entry = newEntry(file.name);
    entry.file = file;
    waiting.push(entry);
    say(entry, "waiting", `Waiting to be sent, ${bytes(file.size)}`);
  }
  summarise();
  sendNext();
}

/** Follow jobs that others started (the command line, an earlier visit). */
export function follow(jobs, titleOf) {
  for (const job of jobs) {
    if (followed.has(job.job_id)) continue;
    const entry = newEntry(titleOf(job));
    attach(entry, job.job_id);
    update(entry, job);
  }
  summarise();
  poll();
}

function newEntry(title) {
  const node = fromTemplate("t-job");
  const entry = { node, title, jobId: null, controller: new AbortController(), isOver: false, isCancelled: false };
  node.querySelector(".title").textContent = title;
  node.querySelector(".bar").setAttribute("aria-label", `Progress of ${title}`);
  node.querySelector(".cancel").setAttribute("aria-label", `Cancel ${title}`);
  node.querySelector(".cancel").addEventListener("click", () => cancel(entry));
  node.querySelector(".retry").setAttribute("aria-label", `Try ${title} again`);
  node.querySelector(".retry").addEventListener("click", () => retry(entry));
  list.append(node);
  return entry;
}

function attach(entry, jobId) {
  entry.jobId = jobId;
  entry.node.dataset.jobId = jobId;
  followed.set(jobId, entry);
}

function sendNext() {
  while (numSending < SENDING_AT_ONCE && waiting.length) {
    numSending += 1;
    send(waiting.shift()).finally(() => {
      numSending -= 1;
      sendNext();
    });
  }
}

async function send(entry) {
  if (entry.isOver) return;
  const size = bytes(entry.file.size);
  try {
    say(entry, "sending", `Sending ${size}`, 0);
    const onProgress = (part) => say(entry, "sending", `Sending ${size}`, part);
    const answer = await api.addVideo(entry.file, onProgress, entry.controller.signal);
    entry.file = null;
    attach(entry, answer.job_id);
    if (answer.is_duplicate) entry.note = "Already in the library";
    update(entry, await api.job(answer.job_id));
    poll();
  } catch (error) {
    if (error.name === "AbortError") return end(entry, "cancelled", "Cancelled");
    if (!(error instanceof api.ApiError)) throw error;
    end(entry, "failed", "Not added", error);
    entry.node.querySelector(".retry").hidden = !entry.file;
  }
}

async function poll() {
  if (isPolling) return;
  isPolling = true;
  const open = () => [...followed.values()].filter((entry) => !entry.isOver).slice(0, ASKED_AT_ONCE);
  for (let due = open(); due.length; due = open()) {
    await Promise.all(due.map(ask));
    await new Promise((resolve) => setTimeout(resolve, document.hidden ? 5 * POLL_MS : POLL_MS));
  }
  isPolling = false;
}

async function ask(entry) {
  try {
    update(entry, await api.job(entry.jobId));
  } catch (error) {
    if (!(error instanceof api.ApiError)) throw error;
    if (error.status === 404) end(entry, "cancelled", "Removed");
    else if (!entry.isOver) say(entry, "waiting", "The server does not answer; trying again");
  }
}

function update(entry, job) {
  if (entry.isOver) return; // an answer from before it was cancelled
  const { done, total, percent } = job.progress;
  if (job.status === "succeeded") return end(entry, "done", entry.note ?? "In the library", null, true);
  if (job.status === "cancelled") return end(entry, "cancelled", "Cancelled");
  if (job.status === "failed") return end(entry, "failed", "Could not be indexed", job.error, true);
  const again = job.attempt > 1 ? `, attempt ${job.attempt} of ${job.max_attempts}` : "";
  const parts = total > 1 ? `, part ${Math.min(done + 1, total)} of ${total}` : "";
  const stage = job.status === "queued" ? "queued" : job.stage;
  const text = entry.isCancelled ? "Cancelling" : `${STAGES[stage] ?? stage}${parts}${again}`;
  say(entry, job.status === "queued" ? "waiting" : "running", text, total ? percent / 100 : undefined);
}

function say(entry, state, text, part) {
  const { node } = entry;
  node.dataset.state = state;
  const facts = node.querySelector(".facts");
  if (facts.textContent !== text) facts.textContent = text;
  const bar = node.querySelector(".bar");
  bar.classList.toggle("unknown", part === undefined);
  if (part === undefined) bar.removeAttribute("aria-valuenow");
  else bar.setAttribute("aria-valuenow", String(Math.round(100 * part)));
  bar.firstElementChild.style.width = part === undefined ? "" : `${(100 * part).toFixed(1)}%`;
}

function end(entry, state, text, error = null, tell = false) {
  if (entry.isOver) return;
  entry.isOver = true;
  say(entry, state, text, 1);
  const { node } = entry;
  const symbol = { done: "check", failed: "alert", cancelled: "close" }[state];
  node.querySelector(".state use").setAttribute("href", `#i-${symbol}`);
  node.querySelector(".bar").hidden = true;
  node.querySelector(".cancel").hidden = true;
  const reason = node.querySelector(".reason");
  reason.hidden = !error;
  reason.textContent = error ? [error.detail ?? error.message, error.hint].filter(Boolean).join(" ") : "";
  summarise();
  if (tell) onIndexed();
}

async function cancel(entry) {
  entry.isCancelled = true;
  if (!entry.jobId) {
    entry.controller.abort();
    if (waiting.includes(entry)) {
      waiting.splice(waiting.indexOf(entry), 1);
      end(entry, "cancelled", "Cancelled");
    }
    return;
  }
  entry.node.querySelector(".cancel").disabled = true;
  try {
    update(entry, await api.cancelJob(entry.jobId));
  } catch (error) {
    if (!(error instanceof api.ApiError)) throw error;
    await ask(entry); // it ended meanwhile
  }
}

function retry(entry) {
  const { file } = entry;
  entry.node.remove();
  add([file]);
}

function clearFinished() {
  for (const node of [...list.children]) if (["done", "failed", "cancelled"].includes(node.dataset.state)) node.remove();
  summarise();
}

function summarise() {
  const nodes = [...list.children];
  const isOver = (node) => ["done", "failed", "cancelled"].includes(node.dataset.state);
  const numOpen = nodes.filter((node) => !isOver(node)).length;
  byId("activity").hidden = !nodes.length;
  byId("nav-library").toggleAttribute("data-busy", numOpen > 0);
  byId("activity-title").textContent = numOpen ? `Adding ${many(numOpen, "video")}` : "Added";
  byId("activity-clear").hidden = numOpen === nodes.length;
  nodes.forEach((node, i) => node.classList.toggle("beyond", i >= ROWS && !isOver(node)));
  const numBeyond = nodes.filter((node) => node.classList.contains("beyond")).length;
  byId("job-rest").hidden = !numBeyond;
  byId("job-rest").textContent = `and ${many(numBeyond, "more", "more")}`;
}
