// Saving a drawing as PNG, SVG, CSV and one HTML file, by buttons.
import { button } from "./controls";
import { escaped } from "./scene";

/** Return a name for a file: letters, digits and dashes. */
export function fileName(title: string): string {
  const plain = title
    .normalize("NFKD")
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-");
  return plain.replace(/^-+|-+$/g, "").slice(0, 60) || "figure";
}

/** Let the browser save a file. */
export function download(name: string, content: Blob): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Return a page of one file with the picture and its numbers; it runs nothing and loads nothing. */
export function htmlOf(title: string, svg: string, csv: string): string {
  const rows = csvRows(csv).map((row, i) => {
    const cells = row.map((text) =>
      i ? `<td>${escaped(text)}</td>` : `<th scope="col">${escaped(text)}</th>`,
    );
    return `<tr>${cells.join("")}</tr>`;
  });
  return [
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
    `<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:">\n`,
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
    `<title>${escaped(title)}</title>\n</head>\n<body>\n<h1>${escaped(title)}</h1>\n`,
    `<p><img src="data:image/svg+xml,${encodeURIComponent(svg)}" alt="${escaped(title)}"></p>\n`,
    `<table cellpadding="4">\n${rows.join("\n")}\n</table>\n</body>\n</html>\n`,
  ].join("");
}

/** Return the cells of comma-separated values. */
export function csvRows(csv: string): string[][] {
  const rows: string[][] = [];
  let row: string[] = [];
  for (const [, quoted, plain, end] of csv.matchAll(/(?:"((?:[^"]|"")*)"|([^,\n]*))([,\n])/g)) {
    row.push(quoted === undefined ? (plain ?? "") : quoted.replaceAll('""', '"'));
    if (end === "\n") {
      rows.push(row);
      row = [];
    }
  }
  return rows;
}

/** A figure that can be written as files. */
export interface Files {
  svg(): string;
  csv(): string;
  png(): Promise<Blob>;
}

/** Return buttons that save what a drawing shows. */
export function saveButtons(drawing: Files, title: () => string, words = ""): HTMLElement {
  const row = document.createElement("div");
  row.className = "ph-save";
  row.setAttribute("role", "group");
  row.setAttribute("aria-label", words || "Save the figure");
  row.append(words || "Save as");
  const save = (ending: string, make: () => Blob | Promise<Blob>) =>
    button(
      ending.toUpperCase(),
      () => void Promise.resolve(make()).then((blob) => download(`${fileName(title())}.${ending}`, blob)),
    );
  row.append(
    save("png", () => drawing.png()),
    save("svg", () => new Blob([drawing.svg()], { type: "image/svg+xml" })),
    save("csv", () => new Blob([drawing.csv()], { type: "text/csv" })),
    save("html", () => new Blob([htmlOf(title(), drawing.svg(), drawing.csv())], { type: "text/html" })),
  );
  return row;
}
