/** Files on their way into the library: sent two at a time, then followed as jobs until they end. */

import * as api from "./api.js";
import { byId, fromTemplate } from "./dom.js";
import { bytes, clock, many, span, speed } from "./format.js";

const SENDING_AT_ONCE = 2;
const ROWS = 30;
const ASKED_AT_ONCE = 4;
const MOST_RUNNING = 100;
const POLL_MS = 700;

const list = byId("job-list");
const waiting = []; // entries not sent yet
const followed = new Map(); // job id -> entry
let numSending = 0;
let isPolling = false;
let onIndexed = () => {};

const STAGES = { queued: "Waiting", probe: "Starting", encode: "Indexing", publish: "Nearly done", done: "Done" };

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
    show(entry, "waiting", `Waiting to be sent, ${bytes(file.size)}`);
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
    show(entry, "sending", `Sending ${size}`, 0);
    const onProgress = (part) => show(entry, "sending", `Sending ${size}`, part);
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
  const isOpen = () => [...followed.values()].some((entry) => !entry.isOver);
  while (isOpen()) {
    await look();
    await new Promise((resolve) => setTimeout(resolve, document.hidden ? 5 * POLL_MS : POLL_MS));
  }
  isPolling = false;
}

/** One look at the queue: what runs is listed at once, what no longer runs or may have started is asked for. */
async function look() {
  const running = new Map();
  try {
    const [page, queue] = await Promise.all([api.jobs({ status: "running", limit: MOST_RUNNING }), api.queue()]);
    for (const job of page.jobs) running.set(job.job_id, job);
    showQueue(queue);
  } catch (error) {
    if (!(error instanceof api.ApiError)) throw error; // those that are asked for show it
  }
  const others = [];
  for (const entry of followed.values()) {
    if (entry.isOver) continue;
    if (running.has(entry.jobId)) update(entry, running.get(entry.jobId));
    else others.push(entry);
  }
  const hasStopped = others.filter((entry) => entry.node.dataset.state === "running");
  const waits = others.filter((entry) => entry.node.dataset.state !== "running");
  await Promise.all([...hasStopped, ...waits.slice(0, ASKED_AT_ONCE)].map(ask));
}

/** The whole queue as one line. */
function showQueue({ queued, running, succeeded, failed, cancelled, x_real_time, eta_s }) {
  const numEnded = succeeded + failed + cancelled;
  const parts = [`${numEnded.toLocaleString()} of ${many(numEnded + queued + running, "video")}`];
  if (x_real_time !== null) parts.push(speed(x_real_time));
  if (eta_s !== null) parts.push(`about ${span(eta_s)} left`);
  byId("queue").textContent = parts.join(", ");
  byId("queue").hidden = !(queued + running);
}

async function ask(entry) {
  try {
    update(entry, await api.job(entry.jobId));
  } catch (error) {
    if (!(error instanceof api.ApiError)) throw error;
    if (error.status === 404) end(entry, "cancelled", "Removed");
    else if (!entry.isOver) show(entry, "waiting", "The server does not answer; trying again");
  }
}

function update(entry, job) {
  if (entry.isOver) return; // an answer from before it was cancelled
  if (job.status === "succeeded") return end(entry, "done", entry.note ?? "In the library", null, true);
  if (job.status === "cancelled") return end(entry, "cancelled", "Cancelled");
  if (job.status === "failed") return end(entry, "failed", "Could not be indexed", job.error, true);
  const again = job.attempt > 1 ? `, attempt ${job.attempt} of ${job.max_attempts}` : "";
  const isQueued = job.status === "queued";
  const text = entry.isCancelled ? "Cancelling" : `${STAGES[isQueued ? "queued" : job.stage] ?? job.stage}${again}`;
  if (isQueued) show(entry, "waiting", text);
  else if (!job.progress.total) show(entry, "running", text);
  else show(entry, "running", text, job.progress.fraction, pace(job.progress));
}

/** How far a running job is and how fast: what is not known yet is left out. */
function pace({ done, total, percent, video_s_done, video_s_total, x_real_time, eta_s }) {
  const parts = [`${Math.round(percent)} %`];
  if (video_s_total) parts.push(`${clock(video_s_done)} of ${clock(video_s_total)}`);
  else if (total > 1) parts.push(`part ${Math.min(done + 1, total)} of ${total}`);
  if (x_real_time !== null) parts.push(speed(x_real_time));
  if (eta_s !== null) parts.push(`about ${span(eta_s)} left`);
  return parts.map((part) => `, ${part}`).join("");
}

/** pace: numbers that change all the time, which a screen reader is not to read out each time. */
function show(entry, state, text, part, pace = "") {
  const { node } = entry;
  node.dataset.state = state;
  const what = node.querySelector(".what");
  if (what.textContent !== text) what.textContent = text;
  node.querySelector(".pace").textContent = pace;
  const bar = node.querySelector(".bar");
  bar.classList.toggle("unknown", part === undefined);
  if (part === undefined) bar.removeAttribute("aria-valuenow");
  else bar.setAttribute("aria-valuenow", String(Math.round(100 * part)));
  bar.firstElementChild.style.width = part === undefined ? "" : `${(100 * part).toFixed(1)}%`;
}

function end(entry, state, text, error = null, changesIndex = false) {
  if (entry.isOver) return;
  entry.isOver = true;
  show(entry, state, text, 1);
  const { node } = entry;
  const symbol = { done: "check", failed: "alert", cancelled: "close" }[state];
  node.querySelector(".state use").setAttribute("href", `#i-${symbol}`);
  node.querySelector(".bar").hidden = true;
  node.querySelector(".cancel").hidden = true;
  const reason = node.querySelector(".reason");
  reason.hidden = !error;
  reason.textContent = error ? [error.detail ?? error.message, error.hint].filter(Boolean).join(" ") : "";
  summarise();
  if (changesIndex) onIndexed();
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
  if (!numOpen) byId("queue").hidden = true;
  byId("nav-library").toggleAttribute("data-busy", numOpen > 0);
  byId("activity-title").textContent = numOpen ? `Adding ${many(numOpen, "video")}` : "Added";
  byId("activity-clear").hidden = numOpen === nodes.length;
  nodes.forEach((node, i) => node.classList.toggle("beyond", i >= ROWS && !isOver(node)));
  const numBeyond = nodes.filter((node) => node.classList.contains("beyond")).length;
  byId("job-rest").hidden = !numBeyond;
  byId("job-rest").textContent = `and ${many(numBeyond, "more", "more")}`;
}
