"use strict";
(() => {
  const filter = document.querySelector(".filter");
  const box = filter && filter.querySelector("input");
  if (!box) return;
  filter.hidden = false;
  const apply = () => {
    for (const item of document.querySelectorAll(".item")) item.hidden = box.checked && !item.classList.contains("open");
    for (const section of document.querySelectorAll(".part")) section.hidden = !section.querySelector(".item:not([hidden])");
  };
  box.addEventListener("change", apply);
  addEventListener("beforeprint", () => {
    for (const one of document.querySelectorAll(".item, .part")) one.hidden = false;
  });
  addEventListener("afterprint", apply);
  apply();
})();
