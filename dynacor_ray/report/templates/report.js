"use strict";
(() => {
  // Everything from data goes into the page as text, never as markup.
  const data = JSON.parse(document.getElementById("data").textContent);
  const isPhone = () => matchMedia("(max-width: 560px)").matches;
  const PAGE = isPhone() ? 20 : 40;
  const SVG = "http://www.w3.org/2000/svg";
  const GROUPS = { flagged: "flagged", unflagged: "not flagged", planted: "planted errors" };
  const byId = (id) => document.getElementById(id);
  const names = data.classes;
  const count = (number) => number.toLocaleString("en");

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  function draw(tag, attributes, text) {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    return element;
  }

  // ---------------------------------------------------------------------------------------------------------- charts

  function ticks(low, high, intervals) {
    const raw = (high - low) / intervals || 1;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
    const values = [];
    for (let at = Math.ceil(low / step) * step; at <= high + step / 1e6; at += step) values.push(Math.abs(at) < step / 1e6 ? 0 : at);
    return values;
  }

  const label = (value) => (Math.abs(value) >= 1000 ? `${Number((value / 1000).toPrecision(3))}k` : String(Number(value.toPrecision(3))));

  // Draw the axes of a chart; returns the functions that map values to positions.
  function axes(svg, width, height, xs, ys, names) {
    const left = 44, right = 12, top = 10, bottom = 34;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.replaceChildren();
    const x = (value) => left + ((value - xs[0]) / (xs[1] - xs[0] || 1)) * (width - left - right);
    const y = (value) => height - bottom - ((value - ys[0]) / (ys[1] - ys[0] || 1)) * (height - top - bottom);
    for (const at of ticks(ys[0], ys[1], 4)) {
      svg.append(draw("line", { class: at === 0 && ys[0] < 0 ? "zero" : "grid", x1: left, x2: width - right, y1: y(at), y2: y(at) }));
      svg.append(draw("text", { x: left - 6, y: y(at) + 4, "text-anchor": "end" }, label(at)));
    }
    for (const at of names.at || ticks(xs[0], xs[1], 6)) {
      svg.append(draw("text", { x: x(at), y: height - bottom + 15, "text-anchor": "middle" }, label(at)));
    }
    svg.append(draw("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, names.x));
    return { x, y };
  }

  const path = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

  function drawDynamics(svg, key, width, height, row) {
    const bands = Object.entries(data.bands).filter(([, band]) => band.rows);
    const epochs = Math.max(...bands.map(([, band]) => band.mean.length), row ? row.path.length : 0);
    const margins = [0, ...bands.flatMap(([, band]) => [...band.low, ...band.high, ...band.mean]), ...(row ? row.path : [])];
    const range = [Math.min(...margins), Math.max(...margins)];
    const padding = 0.04 * (range[1] - range[0] || 1);
    const epochTicks = ticks(1, epochs, 8).filter((at) => Number.isInteger(at) && at > 0);
    const { x, y } = axes(svg, width, height, [1, Math.max(epochs, 2)], [range[0] - padding, range[1] + padding], { x: "epoch", at: epochTicks });
    const points = (values) => values.map((value, epoch) => [x(epoch + 1), y(value)]);
    for (const [name, band] of bands) {
      svg.append(draw("path", { class: `band ${name}`, d: `${path([...points(band.high), ...points(band.low).reverse()])}Z` }));
    }
    for (const [name, band] of bands) svg.append(draw("path", { class: `line ${name}`, d: path(points(band.mean)) }));
    if (row && row.path.length) {
      svg.append(draw("path", { class: "line row", d: path(points(row.path)) }));
      if (row.path.length === 1) svg.append(draw("circle", { class: "dot row", r: 4, cx: x(1), cy: y(row.path[0]) }));
    }
    key.replaceChildren(...bands.map(([name, band]) => make("span", { class: name }, `${GROUPS[name]} (${count(band.rows)})`)));
    if (row && row.path.length) key.append(make("span", { class: "row" }, `row ${row.id}`));
  }

  function drawHistogram(svg) {
    const [below, above] = data.histogram;
    const tallest = Math.max(...below.map((value, i) => value + above[i]), 1);
    const { x, y } = axes(svg, 400, 220, [0, 1], [0, tallest], { x: "label quality (0 bad, 1 good)" });
    const width = x(1 / below.length) - x(0) - 1;
    below.forEach((low, i) => {
      let base = y(0);
      for (const [kind, value] of [["flagged", low], ["unflagged", above[i]]]) {
        if (!value) continue;
        const height = Math.max(y(0) - y(value), 1);
        base -= height;
        const bar = draw("rect", { class: `mass ${kind}`, x: x(i / below.length) + 0.5, y: base, width, height });
        bar.append(draw("title", {}, `${(i / below.length).toFixed(2)}–${((i + 1) / below.length).toFixed(2)}: ${count(value)} rows ${GROUPS[kind]}`));
        svg.append(bar);
      }
    });
    svg.append(draw("line", { class: "zero", x1: x(0.5), x2: x(0.5), y1: y(0), y2: 10 }));
    svg.append(draw("text", { x: x(0.5) + 5, y: 19 }, "threshold"));
  }

  function drawMetric(svg) {
    const last = Math.max(data.metric.length - 1, 1);
    const epochTicks = ticks(0, last, 8).filter(Number.isInteger);
    const { x, y } = axes(svg, 400, 220, [0, last], [0, Math.max(...data.metric, 1e-6) * 1.18], { x: "epoch of the clustering", at: epochTicks });
    svg.append(draw("path", { class: "line metric", d: path(data.metric.map((value, epoch) => [x(epoch), y(value)])) }));
    const left = x(data.chosen), top = y(data.metric[data.chosen]);
    svg.append(draw("circle", { class: "dot", r: 5, cx: left, cy: top }));
    const anchor = data.chosen > last / 2 ? "end" : "start";
    svg.append(draw("text", { x: left, y: top - 11, "text-anchor": anchor }, `chosen: epoch ${data.chosen}`));
  }

  function spark(row) {
    const svg = draw("svg", { viewBox: "0 0 120 50", class: "chart-spark", width: "100%", height: "100%", "aria-hidden": "true" });
    if (!row.path.length) return svg;
    const low = Math.min(0, ...row.path), high = Math.max(0, ...row.path);
    const y = (value) => 47 - ((value - low) / (high - low || 1)) * 44;
    const points = row.path.map((value, i) => [3 + (i * 114) / Math.max(row.path.length - 1, 1), y(value)]);
    svg.append(draw("line", { x1: 0, x2: 120, y1: y(0), y2: y(0), stroke: "currentColor", "stroke-opacity": 0.35, "stroke-dasharray": "3 3" }));
    svg.append(draw("path", { d: path(points), fill: "none", stroke: "currentColor", "stroke-width": 2 }));
    return svg;
  }

  // --------------------------------------------------------------------------------------------------------- gallery

  const state = { shown: PAGE, rows: [], at: -1 };
  const fields = { given: byId("given"), suggested: byId("suggested"), order: byId("order"), query: byId("query") };
  const ORDERS = {
    rank: (a, b) => a.rank - b.rank,
    near: (a, b) => Math.abs(a.quality - 0.5) - Math.abs(b.quality - 0.5) || a.rank - b.rank,
    audit: (a, b) => a.audit - b.audit, // a random order: the first n are a sample too
    id: (a, b) => (a.id.length - b.id.length) || (a.id < b.id ? -1 : 1),
  };

  function picture(row, alternative) {
    if (!row.image) return null;
    return make("img", { src: row.image, alt: alternative, loading: "lazy", decoding: "async" });
  }

  const describe = (row) =>
    row.given === row.suggested ? `given ${names[row.given]}` : `given ${names[row.given]}, looks like ${names[row.suggested]}`;

  function card(row, place) {
    const view = make("span", { class: row.image ? "view" : "view spark" }, picture(row, `Row ${row.id}, ${describe(row)}`) || spark(row));
    const mark = marks.get(row.id);
    if (mark) view.append(make("span", { class: `mark ${mark}` }, mark));
    const differs = row.given !== row.suggested;
    const text = make("span", { class: "words" });
    text.append(make("span", { class: "label given" }, make("i", {}, "given"), make("bdi", {}, names[row.given])));
    if (differs) text.append(make("span", { class: "label suggested" }, make("i", {}, "looks like"), make("bdi", {}, names[row.suggested])));
    text.append(make("span", { class: "id" }, make("span", {}, `row ${row.id}`), make("span", {}, `quality ${row.quality.toFixed(3)}`)));
    const button = make("button", { type: "button", class: "card", "aria-label": `Row ${row.id}: ${describe(row)}. ${row.why}`, title: row.why }, view, text);
    button.addEventListener("click", () => open(place));
    return make("li", { "data-id": row.id }, button);
  }

  function matching() {
    const query = fields.query.value.trim().toLowerCase();
    const order = fields.order.value;
    const searching = query !== "";
    const rows = data.rows.filter(
      (row) =>
        (fields.given.value === "" || row.given === Number(fields.given.value)) &&
        (fields.suggested.value === "" || row.suggested === Number(fields.suggested.value)) &&
        (!searching || row.id === query || (query.length > 2 && row.uri.toLowerCase().includes(query)) || row.id.startsWith(query)) &&
        (order !== "audit" || row.audit !== null) &&
        (order !== "rank" || row.flagged || searching || data.flagged === 0)
    );
    return rows.sort(ORDERS[order]);
  }

  function totalFlagged() {
    // All flagged rows of the selected pair, not only those in the report.
    if (fields.order.value !== "rank" || fields.query.value.trim()) return null;
    const given = fields.given.value, suggested = fields.suggested.value;
    if (given === "" && suggested === "") return data.flagged;
    if (given === "" || suggested === "") return null;
    const cell = document.querySelector(`.cell[data-given="${given}"][data-suggested="${suggested}"]`);
    return cell ? Number(cell.getAttribute("aria-label").split(" ")[0].replaceAll(",", "")) : null;
  }

  function show(more = false) {
    state.shown = more ? state.shown + PAGE : PAGE;
    state.rows = matching();
    const visible = state.rows.slice(0, state.shown);
    const first = more ? state.shown - PAGE : 0;
    if (!more) byId("cards").replaceChildren();
    byId("cards").append(...visible.slice(first).map((row, i) => card(row, first + i)));
    byId("more").hidden = state.rows.length <= state.shown;
    const all = totalFlagged();
    const others = all !== null && all > state.rows.length ? ` of ${count(all)} flagged; the others are in issues.parquet` : "";
    byId("audit-note").hidden = fields.order.value !== "audit";
    const none = fields.query.value.trim() ? "This row is not in the report, which shows the most suspicious rows; issues.parquet has all." : "No row matches these filters.";
    byId("count").textContent = state.rows.length ? `${count(state.rows.length)} rows${others}${data.flagged === 0 ? ", none of them flagged" : ""}.` : none;
    for (const cell of document.querySelectorAll(".cell")) {
      const selected = cell.dataset.given === fields.given.value && cell.dataset.suggested === fields.suggested.value;
      cell.setAttribute("aria-pressed", String(selected));
    }
    for (const head of document.querySelectorAll(".matrix th button")) {
      const side = head.dataset.given === undefined ? "suggested" : "given";
      head.classList.toggle("on", head.dataset[side] === fields[side].value);
    }
  }

  function filter(given, suggested) {
    const same = fields.given.value === given && fields.suggested.value === suggested;
    fields.given.value = same ? "" : given;
    fields.suggested.value = same ? "" : suggested;
    fields.query.value = "";
    if (fields.order.value === "audit") fields.order.value = "rank";
    show();
  }

  // ---------------------------------------------------------------------------------------------------------- detail

  const dialog = byId("detail");

  function open(place) {
    const row = state.rows[place];
    if (!row) return;
    state.at = place;
    byId("detail-title").textContent = `Row ${row.id}`;
    byId("detail-given").textContent = names[row.given];
    byId("detail-suggested").textContent = names[row.suggested];
    byId("detail-suggested").parentElement.hidden = row.given === row.suggested;
    byId("detail-why").textContent = row.why;
    const image = picture(row, `Row ${row.id}, ${describe(row)}`);
    byId("detail-picture").replaceChildren(...(image ? [image] : []));
    byId("detail-picture").hidden = !image;
    byId("detail-picture").parentElement.classList.toggle("plain", !image);
    const facts = [
      ["Rank among all rows", count(row.rank)],
      ["Flagged", row.flagged ? "yes" : "no"],
      ["Label quality", row.quality.toFixed(4)],
      ["Noise score", row.score.toFixed(4)],
      ["Mean margin", row.margin.toFixed(3)],
      ...(row.uri ? [["Path", row.uri]] : []),
    ];
    byId("detail-facts").replaceChildren(
      ...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, make("bdi", {}, value))))
    );
    const chart = byId("detail-chart");
    chart.setAttribute("aria-label", `Logit margin of row ${row.id} per epoch: ${row.path.map((m) => m.toFixed(1)).join(", ")}`);
    if (row.path.length) drawDynamics(chart, byId("detail-key"), isPhone() ? 340 : 640, 200, row);
    if (byId("dynamics-chart")) drawDynamics(byId("dynamics-chart"), byId("dynamics-key"), 400, 220, row);
    for (const button of dialog.querySelectorAll("[data-mark]")) {
      button.setAttribute("aria-pressed", String(marks.get(row.id) === button.dataset.mark));
    }
    byId("previous").disabled = place === 0;
    byId("next").disabled = place === state.rows.length - 1;
    if (!dialog.open) dialog.showModal();
  }

  function step(by) {
    const place = state.at + by;
    if (place >= state.shown && place < state.rows.length) show(true);
    open(place);
  }

  dialog.addEventListener("close", () => {
    const place = byId("cards").children[state.at];
    if (place) place.querySelector("button").focus();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // the backdrop
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const mark = { w: "wrong", r: "right", u: "unsure" }[event.key];
    if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
    else if (mark) setMark(mark);
    else return;
    event.preventDefault();
  });
  byId("close").addEventListener("click", () => dialog.close());
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));

  // ----------------------------------------------------------------------------------------------------------- marks

  const KEY = `dynacor marks ${location.pathname}`;
  const marks = new Map();
  try {
    for (const [id, mark] of Object.entries(JSON.parse(localStorage.getItem(KEY) || "{}"))) marks.set(id, mark);
  } catch {
    marks.clear(); // no storage: marks last as long as the page is open
  }

  function saveMarks() {
    try {
      localStorage.setItem(KEY, JSON.stringify(Object.fromEntries(marks)));
    } catch {
      // see above
    }
    const counts = { wrong: 0, right: 0, unsure: 0 };
    for (const mark of marks.values()) counts[mark] += 1;
    byId("marks").hidden = marks.size === 0;
    byId("marks-text").textContent = `${count(marks.size)} ${marks.size === 1 ? "row" : "rows"} marked: ${counts.wrong} wrong, ${counts.right} right, ${counts.unsure} unsure.`;
  }

  function setMark(mark) {
    const row = state.rows[state.at];
    if (marks.get(row.id) === mark) marks.delete(row.id);
    else marks.set(row.id, mark);
    saveMarks();
    const old = byId("cards").children[state.at];
    if (old) old.replaceWith(card(row, state.at));
    open(state.at);
  }

  for (const button of dialog.querySelectorAll("[data-mark]")) button.addEventListener("click", () => setMark(button.dataset.mark));

  byId("save").addEventListener("click", () => {
    // The given label tells marks of another run. A spreadsheet must not take it for a formula.
    const given = new Map(data.rows.map((row) => [row.id, names[row.given].replace(/^[=+\-@\t\r]/, "'$&").replaceAll('"', '""')]));
    const lines = [...marks].map(([id, mark]) => `${id},${mark},"${given.get(id) ?? ""}"\n`);
    const url = URL.createObjectURL(new Blob([`instance_id,mark,given_label\n${lines.join("")}`], { type: "text/csv" }));
    const link = make("a", { href: url, download: "reviewed.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  });
  byId("forget").addEventListener("click", () => {
    marks.clear();
    saveMarks();
    show();
  });

  // --------------------------------------------------------------------------------------------------------- controls

  const collator = new Intl.Collator("en", { numeric: true });
  const ordered = names.map((name, index) => [name, index]).sort((a, b) => collator.compare(a[0], b[0]));
  for (const side of ["given", "suggested"]) {
    const used = new Set(data.rows.map((row) => row[side]));
    for (const [name, index] of ordered) {
      if (used.has(index)) fields[side].append(make("option", { value: index }, name));
    }
    fields[side].addEventListener("change", () => show());
  }
  fields.order.addEventListener("change", () => show());
  fields.query.addEventListener("input", () => show());
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("clear").addEventListener("click", () => {
    byId("filters").reset();
    show();
  });
  byId("more").addEventListener("click", () => show(true));

  const choose = (select, value) => ([...select.options].some((option) => option.value === value) ? value : "");
  for (const button of document.querySelectorAll(".matrix button, .link[data-given]")) {
    button.addEventListener("click", () => {
      filter(choose(fields.given, button.dataset.given ?? ""), choose(fields.suggested, button.dataset.suggested ?? ""));
      if (button.classList.contains("link") || matchMedia("(max-width: 960px)").matches) byId("filters").scrollIntoView();
    });
  }

  // One tab stop for the matrix; arrow keys move from cell to cell.
  const cells = [...document.querySelectorAll(".cell")];
  cells.forEach((cell, i) => cell.setAttribute("tabindex", i ? "-1" : "0"));
  const table = document.querySelector(".matrix");
  if (table) {
    table.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      const from = event.target.closest(".cell");
      if (!move || !from) return;
      event.preventDefault();
      let line = from.closest("tr").rowIndex, column = from.closest("td").cellIndex;
      for (;;) {
        line += move[0];
        column += move[1];
        const place = table.rows[line] && table.rows[line].cells[column];
        if (!place || line < 1 || column < 1) return;
        const cell = place.querySelector(".cell");
        if (!cell) continue;
        from.setAttribute("tabindex", "-1");
        cell.setAttribute("tabindex", "0");
        cell.focus();
        return;
      }
    });
  }

  const list = byId("class-table");
  for (const head of list.querySelectorAll("thead button")) {
    head.addEventListener("click", () => {
      const column = head.closest("th");
      const text = head.dataset.sort === "text";
      const up = column.getAttribute("aria-sort") === "none" ? text : column.getAttribute("aria-sort") === "descending";
      for (const other of list.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
      column.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = (line) => (text ? line.cells[column.cellIndex].textContent : Number(line.cells[column.cellIndex].dataset.value));
      const order = (a, b) => (text ? collator.compare(value(a), value(b)) : value(a) - value(b));
      const lines = [...list.tBodies[0].rows].sort((a, b) => (up ? order(a, b) : order(b, a)));
      list.tBodies[0].append(...lines);
    });
  }

  if (byId("dynamics-chart")) drawDynamics(byId("dynamics-chart"), byId("dynamics-key"), 400, 220, null);
  drawHistogram(byId("histogram-chart"));
  drawMetric(byId("metric-chart"));
  saveMarks();
  show();
})();
