// Reading values off the plots, zooming them, and the choice of light or dark. The page is whole without it.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const element = (id) => document.getElementById(id);

  // Light or dark
  const root = document.documentElement;
  const theme = element("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const name = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; name(); });
  system.addEventListener("change", name);
  theme.hidden = false;
  name();

  // The part of the run that is shown, in milliseconds
  const over = element("over"), hair = element("hair"), band = element("band"), readout = element("readout");
  const whole = element("whole"), axis = element("axis");
  const plots = [...document.querySelectorAll("svg[data-stretch]")].map((svg) => [svg, svg.viewBox.baseVal.height]);
  const marks = [...document.querySelectorAll(".time [data-t]")];
  const shortest = 20;
  let from = 0, until = data.end, moment = null;

  const share = (t) => (100 * (t - from)) / (until - from);
  const show = (start, end) => {
    from = Math.max(0, Math.min(start, data.end - shortest));
    until = Math.min(data.end, Math.max(end, from + shortest));
    for (const [svg, height] of plots) svg.setAttribute("viewBox", `${from} 0 ${until - from} ${height}`);
    for (const mark of marks) {
      const start = Number(mark.dataset.t), end = Number(mark.dataset.until ?? mark.dataset.t);
      mark.hidden = end < from || start > until;
      const left = Math.max(0, share(start));
      mark.style.left = `${left}%`;
      if (mark.dataset.until) mark.style.width = `${Math.min(100, share(end)) - left}%`;
    }
    const rough = (until - from) / 12, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999999);
    axis.replaceChildren();
    for (let tick = Math.ceil(from / step - 1e-9); tick * step <= until + 1e-6; tick += 1) {
      const label = document.createElement("span");
      label.style.left = `${share(tick * step)}%`;
      label.textContent = String(Number((tick * step / 1000).toFixed(4))) + ((tick + 1) * step > until + 1e-6 ? " s" : "");
      axis.append(label);
    }
    whole.hidden = from === 0 && until === data.end;
    if (moment !== null) read(moment);
  };

  const span = (ms) => (ms >= 1000 ? `${(ms / 1000).toPrecision(3)} s` : `${ms >= 1 ? Number(ms.toPrecision(3)) : ms} ms`);
  const rows = (pairs) => {
    const list = document.createElement("dl");
    for (const [term, value] of pairs) {
      list.append(Object.assign(document.createElement("dt"), { textContent: term }));
      list.append(Object.assign(document.createElement("dd"), { textContent: value }));
    }
    return list;
  };
  const read = (t) => {
    moment = Math.max(from, Math.min(until, t));
    const counts = data.counts, latency = data.latency;
    const slot = Math.min(Math.floor(moment / counts.width), counts.ok.length - 1);
    const bin = Math.min(Math.floor(moment / latency.width), latency.p50.length - 1);
    const perSecond = (rate) => `${rate} /s`;
    const pairs = [["answered", perSecond(counts.ok[slot])]];
    if (counts.fail[slot]) pairs.push(["failed", perSecond(counts.fail[slot])]);
    if (counts.info[slot]) pairs.push(["unknown", perSecond(counts.info[slot])]);
    for (const rank of ["p50", "p95", "p99", "max"]) {
      if (latency[rank][bin] !== null) pairs.push([rank, span(latency[rank][bin])]);
    }
    for (const [node, bars] of Object.entries(data.lanes)) {
      const bar = bars.find(([start, end]) => start <= moment && moment < end);
      if (bar) pairs.push([node, bar[2]]);
    }
    const title = document.createElement("b");
    title.textContent = `${(moment / 1000).toFixed(3)} s`;
    readout.replaceChildren(title, rows(pairs));
    readout.hidden = hair.hidden = false;
    hair.style.left = `${share(moment)}%`;
    const x = over.offsetLeft + (over.offsetWidth * share(moment)) / 100;
    const fits = x + 18 + readout.offsetWidth < over.offsetLeft + over.offsetWidth;
    readout.style.left = `${fits ? x + 14 : x - 14 - readout.offsetWidth}px`;
    over.setAttribute("aria-valuenow", String(Math.round(moment)));
    over.setAttribute("aria-valuetext", `${title.textContent}: ${pairs.map((pair) => pair.join(" ")).join("; ")}`);
  };
  const leave = () => { moment = null; readout.hidden = hair.hidden = true; };

  const timeOf = (event) => {
    const box = over.getBoundingClientRect();
    return from + ((until - from) * Math.max(0, Math.min(box.width, event.clientX - box.left))) / box.width;
  };
  let grip = null;
  over.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    grip = timeOf(event);
    over.setPointerCapture(event.pointerId);
  });
  over.addEventListener("pointermove", (event) => {
    const t = timeOf(event);
    read(t);
    if (grip === null) return;
    band.hidden = false;
    band.style.left = `${share(Math.min(grip, t))}%`;
    band.style.width = `${Math.abs(share(grip) - share(t))}%`;
  });
  over.addEventListener("pointerup", (event) => {
    const t = timeOf(event), start = grip;
    grip = null;
    band.hidden = true;
    if (start !== null && Math.abs(t - start) > (until - from) / 100) show(Math.min(start, t), Math.max(start, t));
  });
  over.addEventListener("pointercancel", () => { grip = null; band.hidden = true; });
  over.addEventListener("pointerleave", leave);
  over.addEventListener("blur", leave);
  over.addEventListener("dblclick", () => show(0, data.end));
  over.addEventListener("keydown", (event) => {
    const reach = until - from, at = moment ?? (from + until) / 2;
    const keys = {
      ArrowLeft: () => read(at - reach / 100),
      ArrowRight: () => read(at + reach / 100),
      Home: () => read(from),
      End: () => read(until),
      "+": () => show(at - reach / 4, at + reach / 4),
      "-": () => show(at - reach, at + reach),
      Escape: () => show(0, data.end),
    };
    if (!(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  });
  whole.addEventListener("click", () => show(0, data.end));
  over.hidden = false;
  document.querySelector(".hint").hidden = false;

  // On paper everything is there, and nothing is zoomed.
  addEventListener("beforeprint", () => {
    leave();
    show(0, data.end);
    for (const folded of document.querySelectorAll("details")) folded.open = true;
  });
})();
