/** Small verbs on the document. Text from outside enters by textContent only. */

export const byId = (id) => document.getElementById(id);

/** A copy of a <template>'s only child. */
export const fromTemplate = (id) => byId(id).content.firstElementChild.cloneNode(true);

/** <tag class="name">text</tag> */
export function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

/** An <svg> showing one symbol of the page's sprite. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** Show an error and its hint in a .notice box; without an error hide the box. */
export function showNotice(box, error) {
  box.hidden = !error;
  box.querySelector(".what").textContent = error ? error.detail : "";
  const hint = box.querySelector(".hint");
  hint.textContent = error?.hint ?? "";
  hint.hidden = !error?.hint;
}

/** Set an image's address; an image that fails to load shows a plain surface. */
export function setImage(img, url) {
  img.classList.remove("absent");
  img.addEventListener("error", () => img.classList.add("absent"), { once: true });
  img.src = url;
}
