// Labels cells by keyboard or touch and keeps them in this browser, by review and reader. Nothing leaves the page but
// the files that the reader saves.
(() => {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const review = document.body.dataset.review;
  const cells = [...document.querySelectorAll("#overview button")];
  const codes = cells.map((cell) => cell.dataset.code);
  const choices = [...document.querySelectorAll("button[data-label]")];
  const tree = choices.filter((choice) => !choice.dataset.key);
  const texts = new Map(tree.map((choice) => [choice.dataset.label, choice.textContent]));
  const byKey = new Map(choices.filter((choice) => choice.dataset.key).map((choice) => [choice.dataset.key, choice.dataset.label]));
  const prefix = `milkit-review:${review}:`;
  const LARGEST = 8, REMEMBERED = 1000;

  let reader = "", current = 0, zoom = 0, unsaved = false;
  let state = { labels: {}, comments: {}, history: [] };

  // What is kept. A browser may refuse to keep anything, or run out of room: then only a saved file does.
  let storage = null;
  try {
    storage = window.localStorage;
    storage.setItem(`${prefix}?`, "");
    storage.removeItem(`${prefix}?`);
  } catch { storage = null; }
  const warn = (text) => { $("warning").textContent = text; $("warning").hidden = false; };
  const refused = () => {
    storage = null;
    warn("This browser keeps nothing for this page. Do not close it before you have saved a JSON file, from which you can go on later.");
  };
  const fits = (value) => {
    if (!value || typeof value !== "object") return null;
    const known = (part) => Object.entries(part ?? {}).filter(([code]) => codes.includes(code));
    return {
      labels: Object.fromEntries(known(value.labels).filter(([, given]) => texts.has(given?.label))),
      comments: Object.fromEntries(known(value.comments).map(([code, text]) => [code, String(text)])),
      history: (Array.isArray(value.history) ? value.history : []).filter((step) => codes.includes(step?.code)),
    };
  };
  const recall = (name) => {
    try { return fits(JSON.parse(storage?.getItem(prefix + name) ?? "null")); } catch { return null; }
  };
  const keep = () => {
    unsaved = true;
    if (storage) { try { storage.setItem(prefix + reader, JSON.stringify(state)); } catch { refused(); } }
    $("kept").textContent = storage
      ? "Every label is kept in this browser under your name."
      : "Not kept in this browser: save a file before you close the page.";
  };
  window.addEventListener("beforeunload", (event) => { if (!storage && unsaved) event.preventDefault(); });
  window.addEventListener("storage", (event) => { // the same reader in another window
    if (reader && event.key === prefix + reader) { state = recall(reader) ?? state; render(); }
  });

  // Showing.
  const labelOf = (code) => state.labels[code]?.label ?? "";
  const say = (text) => { $("said").textContent = text; };
  const count = () => codes.filter(labelOf).length;
  const setScale = () => {
    const picture = $("picture"), view = picture.parentElement, style = getComputedStyle(view);
    const { naturalWidth: width, naturalHeight: height } = picture;
    if (!width) return;
    const room = view.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    const tall = matchMedia("(max-width: 44rem)").matches ? innerHeight * 0.36 : view.clientHeight;
    const fitting = Math.floor(Math.min(room / width, tall / height));
    const chosen = zoom || Math.min(fitting, LARGEST);
    const scale = chosen >= 1 ? chosen : room / width;
    picture.style.width = `${Math.round(width * scale)}px`;
    picture.style.height = `${Math.round(height * scale)}px`;
    picture.style.imageRendering = chosen >= 1 ? "" : "auto";
    $("scale").textContent = chosen >= 1 ? `${chosen} × true pixels` : `reduced to ${Math.round(100 * scale)} %`;
    $("smaller").disabled = chosen <= 1;
    $("larger").disabled = chosen >= LARGEST;
    picture.dataset.scale = Math.max(1, chosen);
  };
  const render = () => {
    const code = codes[current], given = labelOf(code), n = count();
    $("picture").src = cells[current].querySelector("img").src;
    $("picture").alt = `Cell ${current + 1}`;
    $("picture").decode().then(setScale, () => {});
    $("place").textContent = `Cell ${current + 1} of ${codes.length}`;
    $("given").textContent = given ? texts.get(given) : "none yet";
    if ($("comment").value !== (state.comments[code] ?? "")) $("comment").value = state.comments[code] ?? "";
    choices.forEach((choice) => choice.setAttribute("aria-pressed", String(choice.dataset.label === given)));
    cells.forEach((cell, position) => {
      const label = labelOf(codes[position]), text = label ? texts.get(label) : "";
      cell.querySelector(".mark").textContent = text;
      cell.setAttribute("aria-label", `Cell ${position + 1}, ${text || "no label"}`);
      if (position === current) cell.setAttribute("aria-current", "true"); else cell.removeAttribute("aria-current");
    });
    $("bar").value = n;
    $("count").textContent = `${n} of ${codes.length} labelled`;
    $("done").hidden = n < codes.length;
    $("undo").disabled = !state.history.length;
    $("previous").disabled = current === 0;
    $("next").disabled = current === codes.length - 1;
  };
  const go = (position) => {
    current = Math.min(Math.max(position, 0), codes.length - 1);
    zoom = 0;
    render();
  };
  const goOn = () => { // to the next cell without a label, from here and then from the beginning
    const open = codes.map((code, position) => (labelOf(code) ? -1 : position)).filter((position) => position >= 0);
    go(open.find((position) => position > current) ?? open[0] ?? current);
  };

  // Labelling.
  const give = (label) => {
    const code = codes[current], number = current + 1;
    state.history.push({ code, before: state.labels[code] ?? null });
    state.history = state.history.slice(-REMEMBERED);
    state.labels[code] = { label, time: new Date().toISOString() };
    keep();
    goOn();
    say(`Cell ${number}: ${texts.get(label)}. Now cell ${current + 1}.`);
  };
  const undo = () => {
    const step = state.history.pop();
    if (!step) return;
    if (step.before && texts.has(step.before.label)) state.labels[step.code] = step.before;
    else delete state.labels[step.code];
    keep();
    go(codes.indexOf(step.code));
    say(`Undone: cell ${current + 1} has ${labelOf(step.code) ? "its former label" : "no label"}.`);
  };
  choices.forEach((choice) => choice.addEventListener("click", () => { give(choice.dataset.label); clearSearch(); }));
  cells.forEach((cell, position) => cell.addEventListener("click", () => { go(position); $("place").focus(); $("place").scrollIntoView({ block: "center" }); }));
  $("undo").addEventListener("click", undo);
  $("previous").addEventListener("click", () => go(current - 1));
  $("next").addEventListener("click", () => go(current + 1));
  const rescale = (step) => { zoom = Math.min(Math.max(Number($("picture").dataset.scale) + step, 1), LARGEST); setScale(); };
  $("smaller").addEventListener("click", () => rescale(-1));
  $("larger").addEventListener("click", () => rescale(1));
  window.addEventListener("resize", () => { zoom = 0; setScale(); });
  $("comment").addEventListener("input", () => {
    const code = codes[current], text = $("comment").value;
    if (text) state.comments[code] = text; else delete state.comments[code];
    keep();
  });

  const search = () => {
    const wanted = $("search").value.trim().toLowerCase();
    const found = tree.filter((choice) => choice.textContent.toLowerCase().includes(wanted));
    tree.forEach((choice) => { choice.hidden = !found.includes(choice); });
    $("found").textContent = wanted ? `${found.length} found${found.length ? `, first: ${found[0].textContent}` : ""}` : "";
    return wanted ? found[0] : undefined;
  };
  const clearSearch = () => { $("search").value = ""; search(); };
  $("search").addEventListener("input", search);
  $("search").addEventListener("keydown", (event) => {
    if (event.key === "Enter") {
      const first = search();
      if (first) { give(first.dataset.label); clearSearch(); $("search").blur(); }
    }
  });
  const actions = {
    ArrowLeft: () => go(current - 1), ArrowRight: () => go(current + 1), u: undo,
    "/": () => $("search").focus(), c: () => $("comment").focus(),
    "+": () => rescale(1), "=": () => rescale(1), "-": () => rescale(-1),
  };
  document.addEventListener("keydown", (event) => {
    if ($("work").hidden || event.altKey || event.isComposing) return;
    const writing = event.target.matches("input:not([type=checkbox], [type=file]), textarea, select");
    if (writing) {
      if (event.key === "Escape") { if (event.target === $("search")) clearSearch(); event.target.blur(); }
      return;
    }
    if (event.ctrlKey || event.metaKey) {
      if (event.key.toLowerCase() === "z" && !event.shiftKey) { event.preventDefault(); undo(); }
      return;
    }
    if (!$("keys").checked || event.repeat && !event.key.startsWith("Arrow")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const action = actions[key] ?? (byKey.has(key) ? () => give(byKey.get(key)) : undefined);
    if (action) { event.preventDefault(); action(); }
  });

  // Files. What a spreadsheet would compute gets an apostrophe, which `milkit review in` takes away again.
  const columns = ["review", "reader", "number", "code", "label", "comment", "time"];
  const rows = () => codes.map((code, position) => ({
    review, reader, number: position + 1, code, label: labelOf(code), comment: state.comments[code] ?? "", time: state.labels[code]?.time ?? "",
  }));
  const field = (value) => {
    const text = String(value), safe = /^'*[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /["',;\t\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const save = (content, kind, type) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], { type }));
    link.download = `review-${review}-${reader.normalize("NFKD").replace(/[^A-Za-z0-9]+/g, "-").replace(/^-+|-+$/g, "") || "reader"}.${kind}`;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    unsaved = false;
    const left = codes.length - count();
    $("kept").textContent = `Saved ${link.download}${left ? `; ${left} of ${codes.length} cells have no label yet` : ""}.`;
  };
  $("csv").addEventListener("click", () => {
    const lines = [columns, ...rows().map((row) => columns.map((name) => row[name]))];
    save(`\ufeff${lines.map((line) => line.map(field).join(",")).join("\r\n")}\r\n`, "csv", "text/csv;charset=utf-8");
  });
  $("json").addEventListener("click", () => {
    const content = { format: "milkit-review", version: 1, review, reader, saved: new Date().toISOString(), cells: rows() };
    save(`${JSON.stringify(content, null, 1)}\n`, "json", "application/json");
  });
  $("file").addEventListener("change", async () => {
    try {
      const saved = JSON.parse(await $("file").files[0].text());
      if (saved.review !== review) throw new Error("review");
      if (saved.reader !== reader) throw new Error("reader");
      const labels = {}, comments = {};
      for (const { code, label, comment, time } of saved.cells) {
        if (label) labels[code] = { label, time };
        if (comment) comments[code] = comment;
      }
      state = { ...fits({ labels, comments }), history: [] };
      keep();
      goOn();
      say(`${count()} labels were taken from the file.`);
    } catch (error) {
      const what = { review: "It is of another review", reader: "It is of another reader" }[error.message] ?? "It is no JSON file of this page";
      warn(`The file was not taken. ${what}.`);
    }
    $("file").value = "";
  });

  // Who reads.
  const begin = (name) => {
    reader = name;
    const known = recall(name);
    state = known ?? { labels: {}, comments: {}, history: [] };
    $("warning").hidden = Boolean(storage);
    $("name").textContent = name;
    $("start").hidden = true;
    $("work").hidden = false;
    keep();
    unsaved = false;
    current = -1;
    goOn();
    $("place").focus({ preventScroll: true });
  };
  const ask = () => {
    const names = storage ? Object.keys(storage).filter((key) => key.startsWith(prefix)).map((key) => key.slice(prefix.length)).sort() : [];
    const list = $("known").querySelector("p");
    list.replaceChildren(...names.map((name) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = `${name} (${Object.keys(recall(name)?.labels ?? {}).length} of ${codes.length})`;
      button.addEventListener("click", () => begin(name));
      return button;
    }));
    $("known").hidden = !names.length;
    $("work").hidden = true;
    $("start").hidden = false;
    $("reader").focus();
  };
  $("start").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = $("reader").value.trim();
    if (name) begin(name); else $("reader").focus();
  });
  $("leave").addEventListener("click", ask);
  if (!storage) refused();
  ask();
})();
