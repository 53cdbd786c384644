"use strict";
/* The table of micrographs: sorting, filtering, pages, and the panel that opens below a row. */
(() => {
  const PAGE = 100;
  const rows = JSON.parse(document.getElementById("rows").textContent).map((row, index) => ({ ...row, index }));
  const columns = [
    { key: "name", label: "Micrograph", text: true },
    { key: "status", label: "Status", text: true },
    { key: "flags", label: "Flags", value: (row) => row.flags.length },
    { key: "recovered", label: "Recovered signal fraction", digits: 3 },
    { key: "snr_noisy", label: "SNR before", precision: 3 },
    { key: "snr_denoised", label: "SNR after", precision: 3 },
    { key: "sbr", label: "SBR", precision: 3 },
    { key: "defocus", label: "Defocus (µm)", digits: 2 },
    { key: "kept", label: "Power kept (%)", digits: 2 },
    { key: "seconds", label: "Seconds", digits: 2 },
  ].filter((column) => rows.some((row) => row[column.key] !== null && row[column.key].length !== 0));
  const table = document.getElementById("table");
  const name = document.getElementById("filter-name");
  const status = document.getElementById("filter-status");
  const flag = document.getElementById("filter-flag");
  let sorted = { key: null, descending: false };
  let page = 0;

  const element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const numeric = (column) => !column.text && column.key !== "flags";
  const entryOf = (row) => JSON.parse(document.getElementById(`entry-${row.index}`).textContent);
  const picture = (base64, alt) => element("img", { src: `data:image/jpeg;base64,${base64}`, alt, class: "picture" });

  const format = (column, value) => {
    if (value === null) return "–";
    if (column.precision) {
      const text = value.toPrecision(column.precision);
      return text.includes("e") ? Number(text).toString() : text;
    }
    return column.digits === undefined ? value : value.toFixed(column.digits);
  };

  const thumbnails = new IntersectionObserver((cells) => {
    for (const { isIntersecting, target } of cells) {
      if (!isIntersecting) continue;
      thumbnails.unobserve(target);
      const views = entryOf(rows[target.dataset.index]).views;
      if (views) target.replaceChildren(element("img", { src: `data:image/jpeg;base64,${views.pictures.denoised}`, alt: "" }));
    }
  }, { rootMargin: "200px" });

  const matching = () => {
    const part = name.value.trim().toLowerCase();
    const found = rows.filter((row) =>
      row.name.toLowerCase().includes(part) &&
      (!status.value || row.status === status.value) &&
      (!flag.value || (flag.value === "*" ? row.flags.length > 0 : row.flags.includes(flag.value))));
    const column = columns.find((each) => each.key === sorted.key);
    if (!column) return found;
    const value = column.value || ((row) => row[column.key]);
    const direction = sorted.descending ? -1 : 1;
    const compare = column.text ? (a, b) => a.localeCompare(b, undefined, { numeric: true }) : (a, b) => a - b;
    return found.sort((a, b) => {
      const [first, second] = [value(a), value(b)];
      if (first === null || second === null) return (first === null) - (second === null); /* unknown values always last */
      return direction * compare(first, second) || a.index - b.index;
    });
  };

  const toggle = (row, line, button) => {
    const open = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!open));
    if (open) {
      line.nextElementSibling.remove();
      return;
    }
    const cell = element("td", { colspan: String(columns.length + 1) }, window.micrographPanel(entryOf(row), { element, picture }));
    line.after(element("tr", { class: "panel", id: `panel-${row.index}` }, cell));
  };

  const lineOf = (row) => {
    const line = element("tr");
    line.append(element("td", { class: "thumb", "data-index": String(row.index) }, element("span")));
    for (const column of columns) {
      const cell = element("td", numeric(column) ? { class: "number" } : {});
      if (column.key === "name") {
        const slash = row.name.lastIndexOf("/") + 1;
        const folder = slash ? [element("small", {}, row.name.slice(0, slash))] : [];
        const button = element("button", { type: "button", class: "open", "aria-expanded": "false", "aria-controls": `panel-${row.index}` }, row.name.slice(slash), ...folder);
        button.addEventListener("click", () => toggle(row, line, button));
        cell.append(button);
      } else if (column.key === "status") {
        cell.append(element("span", { class: "tag", "data-kind": row.status }, row.status));
      } else if (column.key === "flags") {
        cell.append(...row.flags.map((kind) => element("span", { class: "tag flag" }, kind)));
      } else {
        cell.append(format(column, row[column.key]));
      }
      line.append(cell);
    }
    return line;
  };

  const show = () => {
    const found = matching();
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    page = Math.min(page, pages - 1);
    const lines = found.slice(page * PAGE, (page + 1) * PAGE).map(lineOf);
    thumbnails.disconnect();
    table.tBodies[0].replaceChildren(...lines);
    lines.forEach((line) => thumbnails.observe(line.cells[0]));
    document.getElementById("found").textContent = `${found.length} of ${rows.length} micrographs`;
    document.getElementById("page").textContent = `Page ${page + 1} of ${pages}`;
    document.getElementById("previous").disabled = page === 0;
    document.getElementById("next").disabled = page === pages - 1;
    document.querySelector(".pages").hidden = pages === 1;
    columns.forEach((column, i) => {
      const heading = table.tHead.rows[0].cells[i + 1];
      const order = sorted.descending ? "descending" : "ascending";
      heading.setAttribute("aria-sort", column.key === sorted.key ? order : "none");
    });
  };

  const head = table.tHead.rows[0];
  head.append(element("th", { scope: "col" }, element("span", { class: "hidden" }, "Picture")));
  for (const column of columns) {
    const button = element("button", { type: "button" }, column.label);
    button.addEventListener("click", () => {
      sorted = { key: column.key, descending: sorted.key === column.key ? !sorted.descending : false };
      page = 0;
      show();
    });
    head.append(element("th", numeric(column) ? { scope: "col", class: "number" } : { scope: "col" }, button));
  }
  const options = (select, values) => [...new Set(values)].sort().forEach((value) => select.append(element("option", { value }, value)));
  options(status, rows.map((row) => row.status));
  options(flag, rows.flatMap((row) => row.flags));
  const filtered = () => { page = 0; show(); };
  name.addEventListener("input", filtered);
  for (const select of [status, flag]) select.addEventListener("change", filtered);
  document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("filters").addEventListener("reset", () => setTimeout(filtered));
  document.getElementById("previous").addEventListener("click", () => { page -= 1; show(); });
  document.getElementById("next").addEventListener("click", () => { page += 1; show(); });
  show();
})();
