// Draws the map, shows the cell that is pointed at, and counts cells in gates. Nothing leaves the page but the files
// that the reader saves. What stands in the data is only ever set as text.
(() => {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const pictures = $("pictures").textContent.trim().split(" ");
  $("data").remove();
  $("pictures").remove();
  const { x, y, ids, patient: owner, patients, colours } = data;
  const n = x.length;
  const canvas = $("map"), pen = canvas.getContext("2d");
  // Categories differ in colour and in shape, so that who sees few colours tells them apart, too.
  const HUES = ["#0072b2", "#d55e00", "#009e73", "#aa4499", "#a67c00", "#2e8fc7", "#1b2430"], SHAPES = 4, NONE = "#6f7a86";
  const RAMP = ["#e87059", "#c6417d", "#9613a1", "#5901a5", "#0d0887"];
  const CLIPS = ["circle(50%)", "inset(6%)", "polygon(50% 0, 100% 95%, 0 95%)", "polygon(50% 0, 100% 50%, 50% 100%, 0 50%)"];
  const REACH = 14, STEP = 3;
  const make = (tag, text = "", name = "") => {
    const node = document.createElement(tag);
    node.textContent = text;
    if (name) node.className = name;
    return node;
  };
  const thousands = (value) => value.toLocaleString("en");
  const create = (text, name, act) => {
    const button = make("button", text, name);
    button.type = "button";
    button.addEventListener("click", act);
    return button;
  };

  let colour = colours[0], tool = "look", picked = -1, alone = -1, sorted = 0, falling = false;
  let zoom = 1, shift = [0, 0], gates = [], draft = null, corner = -1, numbered = 0;
  const hidden = colours.map(() => new Set());
  let shown = new Uint8Array(n).fill(1);

  // Where things are: the map's coordinates and the canvas' CSS pixels.
  const least = (values) => values.reduce((a, b) => Math.min(a, b), Infinity);
  const most = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);
  const [left, right, low, high] = [least(x), most(x), least(y), most(y)];
  const size = () => [canvas.clientWidth, canvas.clientHeight];
  const scale = () => {
    const [width, height] = size();
    return zoom * Math.min((width - 40) / (right - left || 1), (height - 40) / (high - low || 1));
  };
  const toScreen = (a, b) => {
    const [width, height] = size(), k = scale();
    return [width / 2 + (a - (left + right) / 2) * k + shift[0], height / 2 - (b - (low + high) / 2) * k + shift[1]];
  };
  const toMap = (a, b) => {
    const [width, height] = size(), k = scale();
    return [(left + right) / 2 + (a - width / 2 - shift[0]) / k, (low + high) / 2 - (b - height / 2 - shift[1]) / k];
  };

  // Drawing. In strides, so that the last patient does not cover the others.
  const gcd = (a, b) => (b ? gcd(b, a % b) : a);
  let stride = Math.max(1, Math.round(n * 0.618));
  while (gcd(stride, n) !== 1) stride += 1;
  const mark = (category) => (category < 0 ? [NONE, 0] : [HUES[category % HUES.length], category % SHAPES]);
  const ramp = (value) => {
    const share = (value - colour.low) / (colour.high - colour.low || 1) * (RAMP.length - 1);
    const from = Math.min(Math.floor(share), RAMP.length - 2), part = share - from;
    const channel = (text, at) => parseInt(text.slice(at, at + 2), 16);
    return `rgb(${[1, 3, 5].map((at) => Math.round(channel(RAMP[from], at) * (1 - part) + channel(RAMP[from + 1], at) * part)).join(" ")})`;
  };
  const stamp = (a, b, r, shape) => {
    pen.beginPath();
    if (shape === 0) pen.arc(a, b, r, 0, 7);
    else if (shape === 1) pen.rect(a - r * 0.9, b - r * 0.9, r * 1.8, r * 1.8);
    else if (shape === 2) { pen.moveTo(a, b - r * 1.2); pen.lineTo(a + r * 1.15, b + r * 0.9); pen.lineTo(a - r * 1.15, b + r * 0.9); }
    else { pen.moveTo(a, b - r * 1.3); pen.lineTo(a + r * 1.3, b); pen.lineTo(a, b + r * 1.3); pen.lineTo(a - r * 1.3, b); }
    pen.fill();
  };
  const outline = (points, closed) => {
    pen.beginPath();
    points.forEach(([a, b], number) => { const place = toScreen(a, b); if (number) pen.lineTo(...place); else pen.moveTo(...place); });
    if (closed) pen.closePath();
    pen.strokeStyle = "#fff"; pen.lineWidth = 4; pen.stroke();
    pen.strokeStyle = "#1b2430"; pen.lineWidth = 1.75; pen.stroke();
  };
  const draw = () => {
    const [width, height] = size(), ratio = window.devicePixelRatio || 1;
    if (!width) return;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, width, height);
    const r = (n > 8000 ? 2.2 : n > 2000 ? 2.8 : 3.8) * Math.min(2, Math.sqrt(zoom));
    for (const front of alone < 0 ? [true] : [false, true]) {
      for (let step = 0, i = 0; step < n; step += 1, i = (i + stride) % n) {
        if (!shown[i] || (alone >= 0 && (owner[i] === alone) !== front)) continue;
        const value = colour.of[i], [a, b] = toScreen(x[i], y[i]);
        const [hue, shape] = colour.names ? mark(value) : [value === null ? NONE : ramp(value), 0];
        pen.globalAlpha = front ? 0.85 : 0.35;
        pen.fillStyle = front ? hue : "#c3cad2";
        stamp(a, b, front ? r : r * 0.7, shape);
      }
    }
    pen.globalAlpha = 1;
    pen.font = "600 13px system-ui, sans-serif";
    gates.forEach((gate) => {
      outline(gate.points, true);
      const [a, b] = toScreen(...gate.points.reduce((best, point) => (point[1] > best[1] ? point : best)));
      pen.textAlign = "center";
      const line = Math.max(b - 8, 16);
      pen.lineWidth = 4; pen.strokeStyle = "#fff"; pen.strokeText(gate.name, a, line);
      pen.fillStyle = "#1b2430"; pen.fillText(gate.name, a, line);
    });
    if (draft) outline(draft, tool === "rectangle");
    [[corner, "#d55e00"], [picked, "#1b2430"]].forEach(([cell, ink]) => {
      if (cell < 0) return;
      const [a, b] = toScreen(x[cell], y[cell]);
      pen.beginPath(); pen.arc(a, b, r + 4, 0, 7);
      pen.strokeStyle = "#fff"; pen.lineWidth = 5; pen.stroke();
      pen.strokeStyle = ink; pen.lineWidth = 2.5; pen.stroke();
    });
    if (zoom > 1) canvas.dataset.moves = ""; else delete canvas.dataset.moves;
  };
  let waiting = 0;
  const redraw = () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(draw); };

  // One cell.
  const written = (colouring, cell) => {
    const value = colouring.of[cell];
    if (colouring.names) return value < 0 ? "none" : colouring.names[value];
    return value === null ? "none" : String(Number(value.toPrecision(4)));
  };
  const pick = (cell) => {
    picked = cell;
    redraw();
    if (cell < 0) return;
    const image = $("picture"), who = patients[owner[cell]], there = pictures[cell] !== "-";
    image.hidden = !there;
    image.alt = `Cell ${ids[cell]} of patient ${who.id}`;
    if (there) image.src = `data:image/webp;base64,${pictures[cell]}`; else image.removeAttribute("src");
    $("absent").hidden = there;
    $("absent").textContent = "No picture of this cell in this file.";
    const rows = [["Cell", ids[cell]], ["Patient", who.id], ...colours.map((one) => [one.title, written(one, cell)])];
    if (data.weight) rows.push(["Weight", data.weight[cell] === null ? "none" : String(Number(data.weight[cell].toPrecision(3)))]);
    const inside = gates.filter((gate) => gate.inside[cell]).map((gate) => gate.name);
    if (gates.length) rows.push(["In gates", inside.join(", ") || "none"]);
    $("about").replaceChildren(...rows.map(([name, text]) => {
      const row = make("div");
      row.append(make("dt", name), make("dd", text));
      return row;
    }));
  };
  const speak = () => {
    if (picked < 0) return;
    $("said").textContent = `Cell ${ids[picked]}, patient ${patients[owner[picked]].id}, ${colours.map((one) => `${one.title} ${written(one, picked)}`).join(", ")}`;
  };
  const nearest = (a, b, reach) => {
    let best = -1, least = reach * reach;
    for (let i = 0; i < n; i += 1) {
      if (!shown[i] || (alone >= 0 && owner[i] !== alone)) continue;
      const [c, d] = toScreen(x[i], y[i]), distance = (a - c) ** 2 + (b - d) ** 2;
      if (distance < least) { least = distance; best = i; }
    }
    return best;
  };
  const go = (right, down) => { // the next cell within 45 degrees of the direction
    if (picked < 0 || !shown[picked]) { const [width, height] = size(); pick(nearest(width / 2, height / 2, Infinity)); return; }
    const [a, b] = toScreen(x[picked], y[picked]);
    let best = -1, least = Infinity;
    for (let i = 0; i < n; i += 1) {
      if (i === picked || !shown[i] || (alone >= 0 && owner[i] !== alone)) continue;
      const [c, d] = toScreen(x[i], y[i]), along = (c - a) * right + (d - b) * down, across = Math.abs((c - a) * down) + Math.abs((d - b) * right);
      if (along > 0.5 && across <= along && along + across < least) { least = along + across; best = i; }
    }
    if (best >= 0) pick(best);
  };

  // Gates: even-odd rule, as in flow cytometry a polygon on two axes.
  const inside = (points, a, b) => {
    let within = false;
    for (let i = 0, j = points.length - 1; i < points.length; j = i, i += 1) {
      const [xi, yi] = points[i], [xj, yj] = points[j];
      if ((yi > b) !== (yj > b) && a < (xj - xi) * (b - yi) / (yj - yi) + xi) within = !within;
    }
    return within;
  };
  const unique = (wanted, but) => {
    const taken = new Set(gates.filter((gate) => gate !== but).map((gate) => gate.name));
    let name = wanted, number = 2;
    while (taken.has(name)) { name = `${wanted} (${number})`; number += 1; }
    return name;
  };
  const add = (points, name) => {
    const mask = new Uint8Array(n);
    for (let i = 0; i < n; i += 1) mask[i] = inside(points, x[i], y[i]);
    numbered += 1;
    gates.push({ name: unique(name || `Gate ${numbered}`), points, inside: mask });
  };
  const box = ([a, b], [c, d]) => [[a, b], [c, b], [c, d], [a, d]];
  const totals = () => {
    const rows = patients.map(() => ({ all: 0, shown: 0, any: 0, gates: gates.map(() => 0) }));
    for (let i = 0; i < n; i += 1) {
      const row = rows[owner[i]];
      row.all += 1;
      if (!shown[i]) continue;
      row.shown += 1;
      let any = 0;
      gates.forEach((gate, number) => { row.gates[number] += gate.inside[i]; any |= gate.inside[i]; });
      row.any += any;
    }
    return rows;
  };
  const share = (part, whole) => (whole ? part / whole : null);
  const told = (part, whole) => (whole ? `${part} (${(100 * part / whole).toFixed(1)} %)` : "0");
  const columns = () => [
    ["Patient", (row, at) => patients[at].id], ["Class", (row, at) => patients[at].label], ["Role", (row, at) => patients[at].role],
    ["Cells shown", (row) => row.shown],
    ...gates.map((gate, number) => [gate.name, (row) => share(row.gates[number], row.shown) ?? -1, (row) => told(row.gates[number], row.shown)]),
    ...(gates.length > 1 ? [["In any gate", (row) => share(row.any, row.shown) ?? -1, (row) => told(row.any, row.shown)]] : []),
  ];
  const tabulate = () => {
    const rows = totals(), fields = columns(), order = patients.map((_, at) => at);
    sorted = Math.min(sorted, fields.length - 1);
    const value = fields[sorted][1], compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
    order.sort((a, b) => (falling ? -1 : 1) * compare(value(rows[a], a), value(rows[b], b)) || a - b);
    const head = make("tr");
    head.append(...fields.map(([title], number) => {
      const cell = make("th", "", number > 2 ? "n" : "");
      const button = create(title, "", () => { falling = sorted === number ? !falling : number > 2; sorted = number; tabulate(); $("counts").querySelectorAll("thead button")[number].focus(); });
      button.setAttribute("aria-pressed", String(sorted === number));
      cell.scope = "col";
      if (sorted === number) cell.setAttribute("aria-sort", falling ? "descending" : "ascending");
      cell.append(button);
      return cell;
    }));
    $("counts").querySelector("thead").replaceChildren(head);
    $("counts").querySelector("tbody").replaceChildren(...order.map((at) => {
      const line = make("tr");
      line.append(...fields.map(([, plain, text], number) => make(number ? "td" : "th", String((text || plain)(rows[at], at)), number > 2 ? "n" : "")));
      line.firstChild.scope = "row";
      return line;
    }));
    $("gate-list").querySelectorAll(".n").forEach((note, number) => {
      note.textContent = `${thousands(rows.reduce((sum, row) => sum + row.gates[number], 0))} cells`;
    });
    $("counts").hidden = !gates.length;
    $("csv").disabled = $("json").disabled = !gates.length;
  };
  const list = () => {
    $("gate-list").replaceChildren(...gates.map((gate) => {
      const item = make("li"), name = make("input");
      name.type = "text"; name.value = gate.name; name.maxLength = 60;
      name.setAttribute("aria-label", "Name of the gate");
      name.addEventListener("change", () => { gate.name = unique(name.value.trim() || "Gate", gate); name.value = gate.name; tabulate(); redraw(); });
      item.append(name, make("span", "", "n"), create("Remove", "", () => { gates = gates.filter((other) => other !== gate); changed(); }));
      return item;
    }));
  };
  const changed = () => { list(); tabulate(); pick(picked); redraw(); };

  // Colours and categories.
  const legend = () => {
    const at = colours.indexOf(colour);
    if (!colour.names) {
      const bar = make("div", "", "ramp"), ends = make("div", "", "ends");
      bar.style.background = `linear-gradient(90deg, ${RAMP.join(", ")})`;
      ends.append(make("span", String(Number(colour.low.toPrecision(4)))), make("span", String(Number(colour.high.toPrecision(4)))));
      $("legend").replaceChildren(bar, ends, make("p", "Grey: not known.", "note"));
    } else {
      const counts = new Map();
      colour.of.forEach((value) => counts.set(value, (counts.get(value) || 0) + 1));
      const values = [...colour.names.keys(), -1].filter((value) => counts.get(value));
      $("legend").replaceChildren(...values.map((value) => {
        const button = create("", "", () => {
          if (!hidden[at].delete(value)) hidden[at].add(value);
          button.setAttribute("aria-pressed", String(!hidden[at].has(value)));
          filter();
        });
        const swatch = make("i"), [hue, shape] = mark(value);
        swatch.style.background = hue;
        swatch.style.clipPath = CLIPS[shape];
        button.append(swatch, make("span", value < 0 ? "none" : colour.names[value]), make("span", thousands(counts.get(value)), "n"));
        button.setAttribute("aria-pressed", String(!hidden[at].has(value)));
        return button;
      }));
    }
  };
  const filter = () => {
    for (let i = 0; i < n; i += 1) shown[i] = colours.every((one, at) => !hidden[at].has(one.of[i])) ? 1 : 0;
    const off = colours.flatMap((one, at) => [...hidden[at]].map((value) => `${value < 0 ? "none" : one.names[value]} (${one.title})`));
    $("drawn").textContent = `${thousands(shown.reduce((a, b) => a + b, 0))} of ${thousands(n)} cells drawn${off.length ? `; switched off: ${off.join(", ")}` : ""}`;
    $("all").hidden = !off.length;
    tabulate();
    redraw();
  };
  colours.forEach((one, at) => $("colour").append(new Option(one.title, String(at))));
  patients.forEach((who, at) => $("patient").append(new Option(who.id, String(at))));
  $("colour").addEventListener("change", () => { colour = colours[Number($("colour").value)]; legend(); redraw(); });
  $("patient").addEventListener("change", () => { alone = $("patient").value === "" ? -1 : Number($("patient").value); redraw(); });
  $("all").addEventListener("click", () => { hidden.forEach((set) => set.clear()); legend(); filter(); $("legend").querySelector("button")?.focus(); });

  // Pointer.
  const tools = [...document.querySelectorAll("[data-tool]")].filter((node) => node !== canvas);
  const choose = (name) => {
    tool = name; draft = null; corner = -1;
    canvas.dataset.tool = name;
    tools.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.tool === name)));
    redraw();
  };
  tools.forEach((button) => button.addEventListener("click", () => choose(button.dataset.tool)));
  const at = (event) => { const edge = canvas.getBoundingClientRect(); return [event.clientX - edge.left, event.clientY - edge.top]; };
  let start = null, origin = [0, 0], last = [0, 0];
  canvas.addEventListener("pointerdown", (event) => {
    if (!event.isPrimary || event.button) return;
    start = last = at(event);
    origin = shift;
    if (tool !== "look") { canvas.setPointerCapture(event.pointerId); draft = [toMap(...start)]; }
    else if (event.pointerType === "touch" || event.pointerType === "pen") pick(nearest(...start, 2 * REACH));
    if (tool === "look" && zoom > 1) canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!event.isPrimary) return;
    const place = at(event);
    if (start && draft) {
      if (tool === "rectangle") draft = box(toMap(...start), toMap(...place));
      else if (Math.hypot(place[0] - last[0], place[1] - last[1]) >= STEP) { draft.push(toMap(...place)); last = place; }
      redraw();
    } else if (start && zoom > 1) {
      shift = [origin[0] + place[0] - start[0], origin[1] + place[1] - start[1]];
      redraw();
    } else if (tool === "look" && event.pointerType === "mouse") {
      const cell = nearest(...place, REACH);
      if (cell >= 0 && cell !== picked) pick(cell);
    }
  });
  canvas.addEventListener("pointerup", (event) => {
    if (!start || !event.isPrimary) return;
    const place = at(event), wide = draft && draft.length > 2 && (() => {
      const spread = [0, 1].map((axis) => { const all = draft.map((point) => toScreen(...point)[axis]); return most(all) - least(all); });
      return spread[0] > 2 * STEP && spread[1] > 2 * STEP;
    })();
    if (wide) { add(draft, ""); start = draft = null; changed(); return; }
    if (draft) pick(nearest(...place, 2 * REACH)); // a tap shows the cell in every tool
    start = draft = null;
    redraw();
  });
  canvas.addEventListener("pointercancel", () => { start = draft = null; redraw(); });
  const rescale = (factor) => {
    const next = Math.min(Math.max(zoom * factor, 1), 40), [width, height] = size();
    const fixed = picked >= 0 ? toScreen(x[picked], y[picked]) : [width / 2, height / 2], point = toMap(...fixed);
    zoom = next;
    const now = toScreen(...point);
    shift = zoom === 1 ? [0, 0] : [shift[0] + fixed[0] - now[0], shift[1] + fixed[1] - now[1]];
    redraw();
  };
  $("in").addEventListener("click", () => rescale(1.6));
  $("out").addEventListener("click", () => rescale(1 / 1.6));
  $("whole").addEventListener("click", () => rescale(0));
  canvas.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const acts = {
      "+": () => rescale(1.6), "=": () => rescale(1.6), "-": () => rescale(1 / 1.6), 0: () => rescale(0),
      Escape: () => { draft = start = null; corner = -1; redraw(); },
      r: () => {
        if (picked < 0) return;
        if (corner < 0) { corner = picked; $("said").textContent = "First corner of a gate."; redraw(); return; }
        const edge = 1e-6 * scale() ** -1; // so that both cells are inside
        const [a, c] = [x[corner], x[picked]].sort((p, q) => p - q), [b, d] = [y[corner], y[picked]].sort((p, q) => p - q);
        corner = -1;
        add(box([a - edge, b - edge], [c + edge, d + edge]), "");
        changed();
      },
    };
    if (moves[event.key]) { event.preventDefault(); go(...moves[event.key]); speak(); }
    else if (acts[event.key]) { event.preventDefault(); acts[event.key](); }
  });

  // Files. What a spreadsheet would compute gets an apostrophe.
  const field = (value) => {
    const text = String(value), safe = typeof value === "string" && /^'*[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /["',;\t\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const save = (content, name, type) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], { type }));
    link.download = name;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  };
  $("csv").addEventListener("click", () => {
    const part = (count, whole) => [count, whole ? count / whole : ""];
    const names = [...gates.map((gate) => gate.name), "any gate"].flatMap((name) => [`${name}: cells`, `${name}: share`]);
    const lines = [["patient_id", "label", "role", "cells_on_map", "cells_shown", ...names], ...totals().map((row, number) => [
      patients[number].id, patients[number].label, patients[number].role, row.all, row.shown,
      ...[...row.gates, row.any].flatMap((count) => part(count, row.shown)),
    ])];
    save(`\ufeff${lines.map((line) => line.map(field).join(",")).join("\r\n")}\r\n`, "gates.csv", "text/csv;charset=utf-8");
  });
  $("json").addEventListener("click", () => {
    const content = { format: "milkit-gates", version: 1, points: document.body.dataset.points, rule: "even-odd", gates: gates.map(({ name, points }) => ({ name, points })) };
    save(`${JSON.stringify(content, null, 1)}\n`, "gates.json", "application/json");
  });
  $("file").addEventListener("change", async () => {
    try {
      const saved = JSON.parse(await $("file").files[0].text());
      if (saved.format !== "milkit-gates") throw new Error("format");
      if (saved.points !== document.body.dataset.points) throw new Error("points");
      const read = saved.gates.map(({ name, points }) => [String(name).slice(0, 60), points.map(([a, b]) => [Number(a), Number(b)])]);
      if (read.some(([, points]) => points.length < 3 || points.flat().some((value) => !Number.isFinite(value)))) throw new Error("format");
      read.forEach(([name, points]) => add(points, name));
      $("warning").hidden = true;
      changed();
    } catch (error) {
      $("warning").textContent = error.message === "points" ? "The gates were not opened: they were drawn on another map." : "The gates were not opened: this is no JSON file of this page.";
      $("warning").hidden = false;
    }
    $("file").value = "";
  });

  $("work").hidden = false;
  canvas.dataset.tool = "look";
  new ResizeObserver(redraw).observe(canvas);
  window.addEventListener("beforeprint", draw);
  legend();
  list();
  filter();
})();
