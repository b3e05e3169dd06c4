// What there is to know of the model: facts, and the report of its evaluation.

import { address, getKey, hasKey } from "./api.js";
import { find, make } from "./dom.js";

// A link sends no header: where a key is needed, a form posts it, and it stays out of the address.
export function showReport(isThere) {
  const key = make("input", { type: "hidden", name: "key", value: getKey() });
  const button = make("button", { class: "link" }, "Report");
  const post = make("form", { method: "post", action: address("report") }, key, button);
  find("report").replaceChildren(hasKey() ? post : make("a", { href: address("report") }, "Report"));
  find("report").hidden = !isThere;
}

export function showFacts(model) {
  const facts = {
    "model version": model.model_version,
    predicts: model.target,
    estimator: model.estimator,
    features: `${model.features.length}, encoded as ${model.encoded_features.length} columns`,
    classes: model.classes?.join(", "),
    "answers from": model.compiled ? "plain arrays, with numpy alone" : "the pickle, with scikit-learn",
    "not compiled because": model.not_compiled_because,
    "made with": Object.entries(model.libraries).map((library) => library.join(" ")).join(", "),
    "a newer model is not served": model.refused,
  };
  const known = Object.entries(facts).filter(([, fact]) => fact);
  find("facts").replaceChildren(...known.flatMap(([name, fact]) => [make("dt", {}, name), make("dd", {}, fact)]));
}
