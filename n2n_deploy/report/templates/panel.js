"use strict";
/* The panel below a row: before/after slider, residual, curves, flags and notes. */
window.micrographPanel = (entry, { element, picture }) => {
  const WIDTH = 460, HEIGHT = 290, LEFT = 52, RIGHT = 12, TOP = 18, BOTTOM = 38;

  const svg = (tag, attributes, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  };

  const figure = (caption, content) => element("figure", {}, element("figcaption", {}, caption), content);

  const slider = (before, after, what) => {
    const box = element("div", { class: "compare" });
    const handle = element("input", { type: "range", min: "0", max: "100", step: "1", value: "50", "aria-label": `${what}: percentage of the noisy image shown` });
    const move = () => {
      box.style.setProperty("--cut", `${handle.value}%`);
      handle.setAttribute("aria-valuetext", `${handle.value} % noisy, ${100 - handle.value} % denoised`);
    };
    handle.addEventListener("input", move);
    const top = picture(after, `${what}, denoised`);
    top.className = "after";
    box.append(picture(before, `${what}, noisy`), top, element("span", { class: "bar" }),
      element("span", { class: "side left" }, "noisy"), element("span", { class: "side right" }, "denoised"), handle);
    move();
    return box;
  };

  const decade = (power) => (power >= -2 && power <= 3 ? String(Number((10 ** power).toPrecision(1))) : `1e${power}`);

  const plot = (curves, label) => {
    const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "plot", role: "img", "aria-label": label });
    const positive = [...curves.noisy, ...curves.denoised].filter((value) => value > 0);
    const last = curves.frequency.at(-1);
    if (!positive.length || !last) return element("p", {}, "There are no positive values to draw.");
    let low = Math.log10(positive.reduce((a, b) => Math.min(a, b)));
    let high = Math.log10(positive.reduce((a, b) => Math.max(a, b)));
    low = Math.max(Math.floor(low), Math.ceil(high) - 8);
    high = Math.max(Math.ceil(high), low + 1);
    const x = (frequency) => LEFT + (WIDTH - LEFT - RIGHT) * frequency / last;
    const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (high - Math.log10(value)) / (high - low);
    for (let power = low; power <= high; power += Math.ceil((high - low) / 6)) {
      drawing.append(svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(10 ** power), y2: y(10 ** power) }));
      drawing.append(svg("text", { x: LEFT - 6, y: y(10 ** power) + 4, "text-anchor": "end" }, decade(power)));
    }
    for (let step = 1; step <= 5; step += 1) {
      const frequency = last * step / 5;
      const place = step === 5 ? { x: WIDTH, "text-anchor": "end" } : { x: x(frequency), "text-anchor": "middle" };
      drawing.append(svg("text", { ...place, y: HEIGHT - BOTTOM + 16 }, Number((1 / frequency).toPrecision(3)).toString()));
    }
    drawing.append(svg("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, "resolution (Å)"));
    for (const zero of curves.zeros) {
      drawing.append(svg("line", { class: "zero", x1: x(zero), x2: x(zero), y1: TOP, y2: HEIGHT - BOTTOM }));
    }
    for (const kind of ["noisy", "denoised"]) {
      let path = "", drawn = false;
      curves.frequency.forEach((frequency, i) => {
        const value = curves[kind][i];
        if (value > 10 ** low / 10) {
          path += `${drawn ? "L" : "M"}${x(frequency).toFixed(1)} ${Math.min(y(value), HEIGHT - BOTTOM).toFixed(1)}`;
          drawn = true;
        } else drawn = false;
      });
      drawing.append(svg("path", { class: kind, d: path }));
    }
    if (curves.zeros.length) drawing.append(svg("text", { class: "zero", x: LEFT, y: 12 }, "┊ CTF zeros"));
    drawing.append(svg("text", { class: "noisy", x: WIDTH - RIGHT - 92, y: 12, "text-anchor": "end" }, "┅ noisy"));
    drawing.append(svg("text", { class: "denoised", x: WIDTH - RIGHT, y: 12, "text-anchor": "end" }, "━ denoised"));
    return drawing;
  };

  const panel = element("div", { class: "detail", role: "region", "aria-label": `Details of ${entry.name}` });
  const words = [
    ...(entry.reason ? [entry.reason] : []),
    ...entry.flags.map((flag) => `${flag.kind}: ${flag.text}`),
    ...entry.notes,
  ];
  if (words.length) panel.append(element("ul", { class: "words" }, ...words.map((text) => element("li", {}, text))));
  if (entry.views) {
    const { pictures, spectra } = entry.views;
    panel.append(figure("Before and after: drag the slider or use the arrow keys", slider(pictures.noisy, pictures.denoised, "Whole field")));
    if (pictures["noisy detail"]) {
      panel.append(figure("Centre, at the network's pixel size", slider(pictures["noisy detail"], pictures["denoised detail"], "Centre")));
    }
    panel.append(figure("Residual: noisy minus denoised", picture(pictures.residual, "Residual of the whole field")));
    panel.append(figure("Power spectrum", plot(spectra, `Power spectra of ${entry.name} before and after denoising, logarithmic, with ${spectra.zeros.length} CTF zeros`)));
  }
  if (entry.ssnr) {
    panel.append(figure("Spectral signal-to-noise ratio (SSNR) of one half", plot(entry.ssnr, `Spectral SNR of ${entry.name} before and after denoising, logarithmic`)));
  }
  if (!entry.views && !words.length) panel.append(element("p", {}, "There are no further details."));
  return panel;
};
