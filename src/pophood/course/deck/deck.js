"use strict";
{
  const root = document.documentElement;
  const slides = [...document.querySelectorAll(".slide")];
  const part = (id) => document.getElementById(id);
  const presenting = new URLSearchParams(location.search).has("presenter");
  let at = 0;
  let peer = presenting ? opener : null; // the other window: the audience's, or the presenter's

  // ---- fitting: the largest text and picture that leave nothing cut ----

  const SPLITS = [0.28, 0.36, 0.42, 0.48, 0.54, 0.62]; // share of the column that is said
  const SIZES = [1.2, 1, 0.9, 0.8, 0.72]; // of the text, in favour of a picture
  const [SMALLEST, LARGEST, STEPS] = [0.55, 1.2, 7];
  const fitted = new Set();

  const squeezed = (image) => { // below three tenths of the slide, and below its own height
    if (!image.clientWidth) return false;
    const own = image.clientWidth * image.getAttribute("height") / image.getAttribute("width");
    return image.clientHeight < Math.min(own, 0.3 * image.closest(".body").clientHeight) - 1;
  };
  const over = (column) => {
    const box = column.getBoundingClientRect();
    if (column.scrollHeight > column.clientHeight + 1 || column.scrollWidth > column.clientWidth + 1) return true;
    if ([...column.querySelectorAll(".picture img")].some(squeezed)) return true;
    return [...column.children].some((child) => child.getBoundingClientRect().bottom > box.bottom + 1);
  };
  const largest = (body, columns) => {
    const fits = (size) => {
      body.style.setProperty("--fit", size.toFixed(4));
      return !columns.some(over);
    };
    let [low, high] = [SMALLEST, LARGEST];
    if (!fits(low)) return 0;
    for (let step = 0; step < STEPS; step++) {
      const middle = (low + high) / 2;
      if (fits(middle)) low = middle; else high = middle;
    }
    return low;
  };
  const picturesArea = (body) => {
    let area = 0;
    for (const image of body.querySelectorAll(".picture img")) {
      const scale = Math.min(image.clientWidth / image.getAttribute("width"),
        image.clientHeight / image.getAttribute("height"));
      area += scale ** 2 * image.getAttribute("width") * image.getAttribute("height");
    }
    return area / body.clientWidth / body.clientHeight;
  };
  const choose = (body, split, size) => {
    body.style.setProperty("--split", split);
    body.style.setProperty("--fit", size.toFixed(4));
  };
  const fit = (slide) => {
    if (fitted.has(slide)) return;
    fitted.add(slide);
    const body = slide.querySelector(".body");
    const columns = [...body.children];
    const pictured = body.querySelector(".picture") !== null;
    slide.classList.add("measured");
    const opened = [...slide.querySelectorAll("details:not([open])")];
    opened.forEach((one) => { one.open = true; }); // there is room for a hint before it is asked for
    let best = { score: -1, split: 0.5, size: SMALLEST };
    for (const split of columns.length > 1 ? SPLITS : [0.5]) {
      body.style.setProperty("--split", split);
      const most = largest(body, columns) || SMALLEST;
      for (const size of [most, ...(pictured ? SIZES.filter((one) => one < most) : [])]) {
        choose(body, split, size);
        const score = Math.min(size, 1) * (0.2 + picturesArea(body)) + size / 20 - Math.abs(split - 0.45) / 10;
        if (score > best.score) best = { score, split, size };
      }
    }
    choose(body, best.split, 0.99 * best.size); // a printer's letters may be a little wider
    opened.forEach((one) => { one.open = false; });
    slide.classList.remove("measured");
  };
  const fitAll = () => slides.forEach(fit);
  const fitLater = () => {
    const waiting = slides.find((slide) => !fitted.has(slide));
    if (!waiting) return;
    fit(waiting);
    setTimeout(fitLater, 20);
  };
  const sizeFormulas = () => { // their size is in pixels at 20 pixels to the em
    for (const image of document.querySelectorAll(".formula img")) {
      image.style.width = `${image.getAttribute("width") / 20}em`;
    }
  };

  // ---- walking ----

  const show = (number, focus, tell = true) => {
    at = Math.max(0, Math.min(slides.length - 1, number));
    slides.forEach((slide, i) => {
      slide.classList.toggle("now", i === at);
      slide.classList.toggle("next", presenting && i === at + 1);
      slide.inert = presenting && i === at + 1;
    });
    slides.slice(at, at + 2).forEach(fit);
    list(false);
    part("count").textContent = `${at + 1} / ${slides.length}`;
    part("back").disabled = at === 0;
    part("on").disabled = at === slides.length - 1;
    try { history.replaceState(null, "", `#${slides[at].id}`); } catch { /* a viewer without addresses */ }
    scrollTo(0, 0);
    if (focus) slides[at].querySelector("h2").focus({ preventScroll: true });
    if (tell) say();
  };
  const list = (open) => {
    root.classList.toggle("listing", open);
    part("list").setAttribute("aria-expanded", String(open));
    if (open) part("contents").querySelector("a").focus();
  };
  const fromAddress = () => {
    const found = slides.findIndex((slide) => `#${slide.id}` === location.hash);
    if (found >= 0) show(found, true);
  };
  const dark = () => root.dataset.theme
    ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const theme = () => { root.dataset.theme = dark() ? "light" : "dark"; };
  const speak = () => {
    const on = root.classList.toggle("speaking");
    part("speak").setAttribute("aria-pressed", String(on));
  };

  // ---- the presenter's window, which walks with this one ----

  const say = () => { if (peer && !peer.closed) peer.postMessage({ slide: at }, "*"); };
  const present = () => {
    if (presenting) return;
    peer = open(`${location.pathname}?presenter#${slides[at].id}`, "", "width=1280,height=720");
  };
  addEventListener("message", (event) => {
    const theirs = event.source && (event.source === peer || event.source.opener === window);
    const number = theirs && event.data ? event.data.slide : null;
    if (!Number.isInteger(number)) return;
    peer = event.source;
    if (number !== at) show(number, false, false);
  });
  const clock = () => {
    let started = Date.now();
    const tick = () => {
      const seconds = Math.floor((Date.now() - started) / 1000);
      part("now").textContent = new Date().toLocaleTimeString(root.lang, { hour: "2-digit", minute: "2-digit" });
      part("elapsed").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    };
    part("clock").hidden = false;
    part("restart").addEventListener("click", () => { started = Date.now(); tick(); });
    tick();
    setInterval(tick, 500);
  };

  const keys = {
    ArrowRight: () => show(at + 1, true), PageDown: () => show(at + 1, true), " ": () => show(at + 1, true),
    ArrowLeft: () => show(at - 1, true), PageUp: () => show(at - 1, true),
    Home: () => show(0, true), End: () => show(slides.length - 1, true),
    t: theme, n: speak, p: present, o: () => list(!root.classList.contains("listing")), Escape: () => list(false),
  };

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === " " && event.target.closest("button, summary, a")) return;
    if (event.key.startsWith("Arrow") && event.target.closest(".scroll")) return;
    const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (act) { event.preventDefault(); act(); }
  });
  addEventListener("hashchange", fromAddress);
  addEventListener("beforeprint", fitAll);
  part("on").addEventListener("click", () => show(at + 1));
  part("back").addEventListener("click", () => show(at - 1));
  part("theme").addEventListener("click", theme);
  part("speak").addEventListener("click", speak);
  part("present").addEventListener("click", present);
  part("list").addEventListener("click", () => list(!root.classList.contains("listing")));
  part("contents").addEventListener("click", (event) => { if (event.target.closest("a")) setTimeout(fromAddress); });

  part("bar").hidden = false;
  root.classList.add("paged");
  root.classList.toggle("presenting", presenting);
  sizeFormulas();
  if (presenting) clock();
  show(Math.max(0, slides.findIndex((slide) => `#${slide.id}` === location.hash)));
  setTimeout(fitLater, 100);
}
