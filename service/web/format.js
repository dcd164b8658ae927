/** Numbers as people read them. Seconds and bytes in, text out. */

/** 7.3 -> "0:07", 3725 -> "1:02:05" */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const pad = (n) => String(n).padStart(2, "0");
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return h ? `${h}:${pad(m)}:${pad(s)}` : `${m}:${pad(s)}`;
}

/** As `clock`, with tenths: what a moment of a short clip needs. */
export const clockTenths = (seconds) => `${clock(seconds)}.${Math.floor((Math.max(0, seconds) % 1) * 10)}`;

export function bytes(count) {
  const units = ["bytes", "KB", "MB", "GB", "TB"];
  let [value, unit] = [count, 0];
  while (value >= 1000 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${unit && value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** As a person estimates time, rounded up: 7.2 -> "8 s", 200 -> "4 min", 7500 -> "2 h 5 min" */
export function span(seconds) {
  const whole = Math.ceil(seconds);
  if (whole < 100) return `${whole} s`;
  const minutes = Math.ceil(whole / 60);
  return minutes < 100 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** Seconds of video per second: 3.21 -> "3.2 × real time" */
export function speed(times) {
  const shown = times < 9.95 ? times.toFixed(times < 0.95 ? 2 : 1) : Math.round(times).toLocaleString();
  return `${shown}\u00a0× real time`;
}

export const many = (count, one, more = `${one}s`) => `${count.toLocaleString()} ${count === 1 ? one : more}`;

export const score = (value) => value.toFixed(3);

export const milliseconds = (value) => (value < 10 ? `${value.toFixed(1)} ms` : `${Math.round(value).toLocaleString()} ms`);
