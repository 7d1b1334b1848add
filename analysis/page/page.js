// The report without this script is complete; this sorts its tables, holds two plans against each other and chooses a
// point of a sweep. What is chosen stands in the fragment, so that a link leads to it:
// #plan=hp&against=ep&sort=phases:2d,plans:1a&model.moe.top_k=4&over=model.moe.top_k
// (a: ascending, d: descending; columns count from 0).
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const tables = all("table.sortable");
  const asWritten = new Map(tables.map((table) => [table, [...table.tBodies[0].rows]]));
  const sorted = new Map(); // table -> {column, down}

  // The number that a cell rounds, else its text; null when it is empty, which sorts last either way.
  const key = (row, column) => {
    const cell = row.cells[column];
    const data = cell.querySelector("data");
    if (data) return Number(data.value);
    const text = cell.textContent.trim();
    return text === "" || text === "–" ? null : text;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", {numeric: true});

  const sort = (table, column, down) => {
    const rows = asWritten.get(table).map((row) => ({row, value: key(row, column)}));
    rows.sort((a, b) => {
      if (a.value === null || b.value === null) return (a.value === null) - (b.value === null);
      return down ? compare(b.value, a.value) : compare(a.value, b.value);
    });
    table.tBodies[0].append(...rows.map(({row}) => row));
    sorted.set(table, {column, down});
    mark(table);
  };
  const unsort = (table) => {
    table.tBodies[0].append(...asWritten.get(table));
    sorted.delete(table);
    mark(table);
  };
  const mark = (table) => {
    const state = sorted.get(table);
    all("thead th", table).forEach((head, column) => {
      if (state && state.column === column) head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  };

  // Up, down, and back to the order of the page.
  const addButton = (table, head) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const state = sorted.get(table);
      if (!state || state.column !== head.cellIndex) sort(table, head.cellIndex, false);
      else if (!state.down) sort(table, head.cellIndex, true);
      else unsort(table);
      remember();
    });
  };

  // Plans: columns, timelines and details of those that are not chosen are hidden; a column says the difference.
  const plan = $("plan");
  const against = $("against");
  const shown = (name) => plan.value === "" || name === plan.value || name === against.value;
  const rounded = (value) => value.toLocaleString("en", {maximumSignificantDigits: 3});
  const signed = (value) => (value > 0 ? "+" : value < 0 ? "−" : "") + rounded(Math.abs(value));
  const percent = (a, b) => signed(Math.round((1000 * (a - b)) / b) / 10);
  // What a plan lacks takes no time and no memory.
  const difference = (row, mine, other) => {
    const [a, b] = [key(row, mine), key(row, other)];
    if (a === null && b === null) return "";
    const data = document.createElement("data");
    data.value = a - b;
    data.textContent = signed((a - b) * Number(row.dataset.factor));
    if (b) data.textContent += ` (${percent(a, b)} %)`;
    return data;
  };

  const comparePlans = (table) => {
    all(".difference", table).forEach((cell) => cell.remove());
    const heads = [...table.tHead.rows[0].cells];
    const column = (name) => heads.findIndex((head) => head.dataset.plan === name);
    const [mine, other] = [column(plan.value), column(against.value)];
    const rows = all("tr", table);
    heads.forEach((head, index) => {
      if (head.dataset.plan !== undefined) rows.forEach((row) => (row.cells[index].hidden = !shown(head.dataset.plan)));
    });
    const comparing = mine >= 0 && mine !== other;
    const lacked = (row) => key(row, mine) === null && key(row, other) === null;
    all("tbody tr", table).forEach((row) => (row.hidden = comparing && lacked(row)));
    if (comparing) {
      rows.forEach((row) => {
        const head = row.parentNode === table.tHead;
        const cell = document.createElement(head ? "th" : "td");
        cell.className = "difference";
        cell.append(head ? "difference" : difference(row, mine, other));
        row.append(cell);
        if (!head) return;
        cell.scope = "col";
        if (tables.includes(table)) addButton(table, cell);
      });
    }
    const state = sorted.get(table);
    if (!state) return;
    const head = table.tHead.rows[0].cells[state.column];
    if (!head || head.hidden) unsort(table);
    else sort(table, state.column, state.down);
  };
  const verdict = () => {
    if (plan.value === "" || plan.value === against.value) return "";
    const rows = asWritten.get($("plans"));
    const [a, b] = [plan.value, against.value].map((name) => rows.find((row) => row.dataset.plan === name));
    const said = (of) => `${of.cells[1].textContent} (${of.cells[2].textContent})`;
    const noise = b.dataset.baseline !== undefined && a.dataset.undecided !== undefined ? ", within the noise" : "";
    return `${plan.value}: ${said(a)}; ${against.value}: ${said(b)}; ${percent(key(a, 1), key(b, 1))} %${noise}`;
  };
  const choosePlans = () => {
    against.disabled = plan.value === "";
    all("table").filter((table) => table.querySelector("th[data-plan]")).forEach(comparePlans);
    all(".plan[data-plan]").forEach((part) => {
      part.hidden = !shown(part.dataset.plan);
      if (part.tagName === "DETAILS") part.open = plan.value === part.dataset.plan;
    });
    $("verdict").textContent = verdict();
  };

  // A sweep: the point that the sliders stand at.
  const sliders = all("input[data-axis]");
  const valuesOf = (slider) => JSON.parse(slider.dataset.values);
  const DASHES = ["none", "7 3", "2 3", "9 3 2 3", "1 2", "14 4"];
  const drawn = (name, attributes, text = "") => {
    const element = document.createElementNS($("curves").namespaceURI, name);
    Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
    element.textContent = text;
    return element;
  };
  // Steps along one axis, the others where their sliders stand; names at the right ends of the curves.
  const drawCurves = () => {
    const [curves, rows] = [$("curves"), asWritten.get($("sweep"))];
    const along = sliders.findIndex((slider) => slider.dataset.axis === $("over").value);
    const column = document.querySelector("#sweep th[data-step]").cellIndex;
    const last = Number(sliders[along].max);
    const points = rows.map((row) => ({row, at: row.dataset.point.split(","), step: key(row, column)}))
      .filter(({at, step}) => step !== null && sliders.every((one, axis) => axis === along || one.value === at[axis]));
    const highest = points.reduce((best, point) => (point.step > best.step ? point : best), {step: 0});
    const x = (index) => `${8 + (67 * index) / last}%`;
    const spacing = Math.ceil((last + 1) / 6); // of labels, so that they stand apart on a phone
    const y = (step) => 165 - (145 * step) / highest.step;
    curves.setAttribute("aria-label", `step over ${$("over").value}; the table has its numbers`);
    curves.replaceChildren(
      drawn("line", {class: "chosen", x1: x(sliders[along].value), x2: x(sliders[along].value), y1: 10, y2: 165}),
      drawn("line", {x1: x(0), x2: x(last), y1: 165, y2: 165}),
      ...valuesOf(sliders[along]).map((value, index) =>
        drawn("text", {x: x(index), y: 180, "text-anchor": "middle"}, index % spacing ? "" : value)));
    const names = [...new Set(rows.map((row) => row.cells[0].textContent))];
    const ends = [];
    names.forEach((name, which) => {
      const curve = points.filter(({row}) => row.cells[0].textContent === name)
        .map(({at, step}) => ({index: Number(at[along]), step})).sort((a, b) => a.index - b.index);
      curve.forEach(({index, step}, place) => {
        curves.append(drawn("circle", {cx: x(index), cy: y(step), r: 2.5}));
        const next = curve[place + 1];
        if (next && next.index === index + 1)
          curves.append(drawn("line", {class: "curve", "stroke-dasharray": DASHES[which % DASHES.length],
            x1: x(index), y1: y(step), x2: x(next.index), y2: y(next.step)}));
      });
      if (curve.length) ends.push({name, at: y(curve[curve.length - 1].step)});
    });
    ends.sort((a, b) => b.at - a.at);
    ends.forEach((end, place) => {
      if (place > 0) end.at = Math.min(end.at, ends[place - 1].at - 13);
      curves.append(drawn("text", {x: "77%", y: end.at + 4}, end.name));
    });
    if (!highest.row) return;
    curves.append(drawn("text", {x: x(0), y: 10}, `highest: ${highest.row.cells[column].textContent}`));
  };

  const choosePoint = () => {
    drawCurves();
    sliders.forEach((slider) => {
      const value = valuesOf(slider)[slider.value];
      slider.setAttribute("aria-valuetext", value);
      document.querySelector(`output[for="${slider.id}"]`).textContent = value;
    });
    const point = sliders.map((slider) => slider.value).join(",");
    const everything = $("all-points").checked;
    const rows = asWritten.get($("sweep"));
    all("#sweep th[data-swept]").forEach((head) =>
      [head.parentNode, ...rows].forEach((row) => (row.cells[head.cellIndex].hidden = !everything)));
    rows.forEach((row) => (row.hidden = !everything && row.dataset.point !== point));
    const count = rows.filter((row) => !row.hidden).length;
    $("point").textContent = count === 0 ? "the sweep has no such point" : `${count} of ${rows.length} rows`;
  };

  const remember = () => {
    const state = new URLSearchParams();
    if (plan.value !== "") {
      state.set("plan", plan.value);
      state.set("against", against.value);
    }
    const sorts = [...sorted].map(([table, {column, down}]) => `${table.id}:${column}${down ? "d" : "a"}`);
    if (sorts.length) state.set("sort", sorts.join(","));
    if (sliders.length && !$("all-points").checked)
      sliders.forEach((slider) => state.set(slider.dataset.axis, valuesOf(slider)[slider.value]));
    if (sliders.length && $("over").selectedIndex) state.set("over", $("over").value);
    history.replaceState(null, "", `#${state}`);
  };
  const select = (list, value) => {
    if ([...list.options].some((option) => option.value === value)) list.value = value;
  };
  // What the fragment does not say is as at first; what it says wrongly is as if it did not.
  const recall = () => {
    const state = new URLSearchParams(location.hash.slice(1));
    plan.value = "";
    against.selectedIndex = Number(against.dataset.baseline);
    select(plan, state.get("plan"));
    select(against, state.get("against"));
    tables.forEach(unsort);
    choosePlans();
    for (const word of (state.get("sort") || "").split(",")) {
      const [, id, column, way] = /^([\w-]+):(\d+)([ad])$/.exec(word) || [];
      const table = tables.find((one) => one.id === id);
      if (table && Number(column) < table.tHead.rows[0].cells.length) sort(table, Number(column), way === "d");
    }
    if (!sliders.length) return;
    $("all-points").checked = false;
    $("over").selectedIndex = 0;
    select($("over"), state.get("over"));
    sliders.forEach((slider) => (slider.value = Math.max(0, valuesOf(slider).indexOf(state.get(slider.dataset.axis)))));
    choosePoint();
  };

  tables.forEach((table) => all("thead th", table).forEach((head) => addButton(table, head)));
  all("form").forEach((form) => {
    form.hidden = false;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", () => {
      if (form.id === "choice") choosePlans();
      else {
        if (document.activeElement.type === "range") $("all-points").checked = false;
        choosePoint();
      }
      remember();
    });
  });
  addEventListener("hashchange", recall);
  // Paper cannot be unfolded; the scenario, ten pages of it, is printed when it is open.
  addEventListener("beforeprint", () => all("details.plan:not([hidden])").forEach((part) => (part.open = true)));
  recall();
})();
