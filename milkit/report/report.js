// Filters the list of patients, opens what is linked to or printed. Without it the page shows everything.
(() => {
  "use strict";
  const patients = [...document.querySelectorAll("[data-patients] > details")];
  const form = document.querySelector("form.filter");

  const openLinked = () => {
    let name = "";
    try { name = decodeURIComponent(location.hash.slice(1)); } catch { return; } // a malformed hash names nothing
    const linked = document.getElementById(name);
    if (linked && linked.matches("details")) { linked.open = true; linked.scrollIntoView(); }
  };
  window.addEventListener("hashchange", openLinked);
  openLinked();

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
  const { id, label, wrong, open, close } = form.elements;
  const count = form.querySelector("output");
  const filter = () => {
    const wanted = id.value.trim().toLowerCase();
    let shown = 0;
    for (const patient of patients) {
      const fits = patient.dataset.id.includes(wanted)
        && (!label.value || patient.dataset.label === label.value)
        && (!wrong.checked || "wrong" in patient.dataset);
      patient.hidden = !fits;
      shown += fits;
    }
    count.textContent = `${shown} of ${patients.length} shown`;
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  open.addEventListener("click", () => patients.forEach((patient) => { patient.open = patient.open || !patient.hidden; }));
  close.addEventListener("click", () => patients.forEach((patient) => { patient.open = false; }));
  form.hidden = false;
  filter();
})();
