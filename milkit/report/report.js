// Filters the list of patients, opens what is linked to or printed. Without it the page shows everything.
(() => {
  "use strict";
  const patients = [...document.querySelectorAll("[data-patients] > details")];
  const form = document.querySelector("form.filter");

  // Only what scrolls is a stop of the Tab key; without this script, every region is one.
  const regions = new ResizeObserver((entries) => entries.forEach(({ target }) => {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0; else target.removeAttribute("tabindex");
  }));
  document.querySelectorAll(".scroll").forEach((region) => regions.observe(region));

  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((details) => { details.open = true; });
  });
  window.addEventListener("afterprint", () => closed.forEach((details) => { details.open = false; }));

  if (!form) return;
  const { id, label, error, least, most, clear, open, close } = form.elements;
  const fields = [id, label, error, least, most];
  const count = form.querySelector("output");
  const filter = () => {
    const wanted = id.value.trim().toLowerCase();
    const [from, to] = [least, most].map((field) => field.valueAsNumber); // NaN where it is empty
    let shown = 0;
    for (const patient of patients) {
      const confidence = Number(patient.dataset.confidence);
      const fits = patient.dataset.id.includes(wanted)
        && (!label.value || patient.dataset.label === label.value)
        && (!error.value || ("wrong" in patient.dataset) === (error.value === "wrong"))
        && !(confidence < from) && !(confidence > to);
      patient.hidden = !fits;
      shown += fits;
    }
    count.textContent = `${shown} of ${patients.length} shown`;
  };

  // The browser keeps the state with this visit: whoever comes back, by its button, finds the list as it was.
  const save = () => {
    const opened = patients.filter((patient) => patient.open).map((patient) => patient.id);
    history.replaceState({ values: fields.map((field) => field.value), opened }, "");
  };
  let waiting = 0;
  const remember = () => { // browsers refuse more than about three a second
    clearTimeout(waiting);
    waiting = setTimeout(save, 300);
  };
  const recall = () => {
    const { values, opened } = history.state || { values: [], opened: [] };
    fields.forEach((field, number) => { field.value = values[number] || ""; });
    patients.forEach((patient) => { patient.open = opened.includes(patient.id); });
  };
  const empty = () => { form.reset(); filter(); remember(); };
  const openLinked = () => {
    let name = "";
    try { name = decodeURIComponent(location.hash.slice(1)); } catch { return; } // a malformed hash names nothing
    const linked = document.getElementById(name);
    if (!linked || !linked.matches("details")) return;
    if (linked.hidden) empty();
    linked.open = true;
    linked.scrollIntoView();
  };

  form.addEventListener("input", () => { filter(); remember(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  clear.addEventListener("click", empty);
  open.addEventListener("click", () => patients.forEach((patient) => { patient.open = patient.open || !patient.hidden; }));
  close.addEventListener("click", () => patients.forEach((patient) => { patient.open = false; }));
  form.hidden = false;

  const back = history.state !== null;
  recall();
  filter();
  if (!back) openLinked();
  patients.forEach((patient) => patient.addEventListener("toggle", remember));
  window.addEventListener("hashchange", () => { openLinked(); remember(); });
  document.addEventListener("click", (event) => { if (event.target.closest("a")) save(); });
})();
