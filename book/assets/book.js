// Repairs for readers who use a keyboard or a screen reader.
(function () {
  "use strict";

  // A box that scrolls must be reachable by keyboard.
  function reachScrollingBoxes() {
    for (const box of document.querySelectorAll(
      ".bd-article pre, .bd-article .cell_output, .bd-article .math, " +
        ".bd-article .pst-scrollable-table-container, .bd-article mjx-container"
    )) {
      if (box.scrollWidth > box.clientWidth) {
        box.tabIndex = 0;
      }
    }
  }

  // docutils calls the bibliography a list, yet its entries are no list items.
  function unlistCitations() {
    for (const list of document.querySelectorAll(".citation-list[role=list]")) {
      list.removeAttribute("role");
    }
  }

  window.addEventListener("DOMContentLoaded", unlistCitations);
  window.addEventListener("load", reachScrollingBoxes);
  window.addEventListener("resize", reachScrollingBoxes);
})();
