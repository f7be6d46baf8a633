// Numbers and foreign text as people read them; the same rules as in the static parts of the page.

const SUPERSCRIPT = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
const HIDDEN = /(?![\u200c\u200d])\p{C}/gu;

// One line without control, format or surrogate characters: none can make text look like what it is not.
function clean(value, limit = 80) {
  const text = String(value).slice(0, 4 * limit).replace(/\s+/gu, " ").trim().replace(HIDDEN, "\ufffd");
  const letters = Array.from(text);
  return letters.length <= limit ? text : letters.slice(0, limit - 1).join("") + "…";
}

function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size === Infinity) return value > 0 ? "∞" : "−∞";
  if (size && (size < 1e-3 || size >= 1e7)) {
    const [mantissa, exponent] = value.toExponential(1).split("e");
    const raised = String(Number(exponent)).split("").map((digit) => SUPERSCRIPT[digit]).join("");
    return `${mantissa}×10${raised}`;
  }
  if (size >= 100) return count(Math.round(value));
  const digits = size ? 2 - Math.floor(Math.log10(size)) : 0;
  return value.toFixed(Math.max(digits, 0));
}

function percent(share) {
  if (share === null || share === undefined || !Number.isFinite(share)) return "–";
  const value = 100 * share;
  if (value >= 99.5 && value < 100) return "over 99\u202f%";
  if (value === 0 || value >= 10) return `${Math.round(value)}\u202f%`;
  if (value < 1e-3) return "below 0.001\u202f%";
  return `${value.toFixed(1 - Math.floor(Math.log10(value)))}\u202f%`;
}

function count(n) {
  return n.toLocaleString("en-US");
}

function samplesText(n) {
  return n === 1 ? "1 sample" : `${count(n)} samples`;
}
