/** The service as the page sees it: JSON in, JSON out, problem+json thrown as ApiError. Knows no element of the page.
 *
 * Addresses are relative to the page's own, so that they stay under the path at which a proxy offers it.
 */

export class ApiError extends Error {
  constructor({ code = "unreachable", detail, hint = "", status = 0 }) {
    super(detail);
    Object.assign(this, { code, detail, hint, status });
  }
}

const unreachable = () =>
  new ApiError({ detail: "The server does not answer.", hint: "Is it still running? The page tries again when you do." });

function problem(status, text) {
  let body = {};
  try {
    body = JSON.parse(text);
  } catch {
    // Not ours (a proxy's page): the status is all there is to say.
  }
  const detail = typeof body.detail === "string" ? body.detail : body.title || `The server answered with status ${status}.`;
  return new ApiError({ code: body.code ?? "unknown", detail, hint: body.hint ?? "", status });
}

async function request(path, { method = "GET", json, body, signal } = {}) {
  const headers = json === undefined ? {} : { "content-type": "application/json" };
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: json === undefined ? body : JSON.stringify(json), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw unreachable();
  }
  const text = await answer.text();
  if (!answer.ok) throw problem(answer.status, text);
  return text ? JSON.parse(text) : null;
}

const id = encodeURIComponent;

export const indexInfo = () => request("index");
export const version = () => request("version");
export const scorers = () => request("scorers");
export const video = (videoId) => request(`videos/${id(videoId)}`);
export const removeVideo = (videoId) => request(`videos/${id(videoId)}`, { method: "DELETE" });
export const queue = () => request("jobs/summary");
export const job = (jobId) => request(`jobs/${id(jobId)}`);
export const cancelJob = (jobId) => request(`jobs/${id(jobId)}/cancel`, { method: "POST" });
export const retryJob = (jobId) => request(`jobs/${id(jobId)}/retry`, { method: "POST" });

export const streamUrl = (videoId) => `videos/${id(videoId)}/stream`;
export const thumbnailUrl = (videoId, atS) => `videos/${id(videoId)}/thumbnail?t=${atS.toFixed(3)}`;

export const videos = (query) => request(`videos?${new URLSearchParams(query)}`);
export const jobs = (query) => request(`jobs?${new URLSearchParams(query)}`);

export const searchText = (query, options, signal) =>
  request("search/text", { method: "POST", json: { query, ...options }, signal });

export const searchStored = (range, options, signal) =>
  request("search/video", { method: "POST", json: { ...range, ...options }, signal });

export function searchClip(file, options, signal) {
  const body = new FormData();
  body.append("options", JSON.stringify(options));
  body.append("file", file);
  return request("search/video", { method: "POST", body, signal });
}

/** Send one file to be indexed. onProgress gets the fraction sent; abort() on the signal ends it. */
export function addVideo(file, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const body = new FormData();
    body.append("file", file);
    const call = new XMLHttpRequest(); // fetch can't report what was sent
    call.open("POST", "index/video");
    call.upload.addEventListener("progress", (event) => event.lengthComputable && onProgress(event.loaded / event.total));
    call.addEventListener("load", () =>
      call.status < 300 ? resolve(JSON.parse(call.responseText)) : reject(problem(call.status, call.responseText)),
    );
    call.addEventListener("error", () => reject(unreachable()));
    call.addEventListener("abort", () => reject(new DOMException("Cancelled", "AbortError")));
    signal.addEventListener("abort", () => call.abort());
    call.send(body);
  });
}
