"use strict";
(() => {
  // Tables: a click on a head sorts by its column, another click turns the order around.
  const words = (row, column) => row.cells[column].textContent.trim();
  const missing = (text) => text === "" || text === "–";
  const value = (text) => {
    const found = /^(<\s*)?([+-]?(?:\d+(?:\.\d*)?|\.\d+))/.exec(text.replace(/,/g, "").replace(/\u2212/g, "-"));
    return found ? Number(found[2]) - (found[1] ? 1e-9 : 0) : NaN;
  };
  const sortBody = (body, column, sign) => {
    const all = [...body.rows];
    const rows = all.filter((row) => !row.classList.contains("fixed"));
    const given = rows.map((row) => words(row, column)).filter((text) => !missing(text));
    const numeric = given.every((text) => !Number.isNaN(value(text)));
    rows.sort((one, other) => {
      const [a, b] = [words(one, column), words(other, column)];
      if (missing(a) || missing(b)) return missing(a) - missing(b);
      return sign * (numeric ? value(a) - value(b) : a.localeCompare(b, undefined, { numeric: true }));
    });
    body.append(...all.map((row) => (row.classList.contains("fixed") ? row : rows.shift())));
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (!head.textContent.trim() || head.classList.contains("plot")) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        [...table.tBodies].forEach((body) => sortBody(body, column, down ? -1 : 1));
      });
    });
  }
  // Confusion matrix: the cell under the pointer is put into words.
  for (const matrix of document.querySelectorAll(".matrix")) {
    const names = [...matrix.querySelectorAll(".side span")].map((label) => label.title);
    const counts = new Map(matrix.dataset.cells.split(";").map((cell) => cell.split(":")));
    const cells = matrix.querySelector(".cells");
    const output = matrix.parentElement.querySelector("output");
    const rest = output.textContent;
    cells.addEventListener("pointermove", (event) => {
      const box = cells.getBoundingClientRect();
      const place = (at, start, length) =>
        Math.min(names.length - 1, Math.max(0, Math.floor(((at - start) / length) * names.length)));
      const row = place(event.clientY, box.top, box.height);
      const column = place(event.clientX, box.left, box.width);
      output.textContent = `seen ${names[row]}, named ${names[column]}: ${counts.get(`${row},${column}`) ?? 0}`;
    });
    cells.addEventListener("pointerleave", () => { output.textContent = rest; });
  }
})();
