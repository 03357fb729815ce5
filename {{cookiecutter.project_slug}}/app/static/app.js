// The script of every page. All pages work without it.

/** Return the CSRF header for a request to `url`; none for another origin, which must never see the token. */
export function csrfHeaders(url) {
  const token = document.querySelector('meta[name="csrf-token"]')?.content;
  const ours = new URL(url, location.href).origin === location.origin;
  return token && ours ? { "X-CSRFToken": token } : {};
}

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});

/** Count down the seconds of `line`. A page without a form has a button to try again, which works after the wait. */
function countDown(line, button) {
  const end = Date.now() + Number(line.dataset.retryAfter) * 1000;
  const clock = line.querySelector("[role=timer]");
  if (button) {
    button.hidden = false;
    button.addEventListener("click", () => location.reload());
  }
  const tick = () => {
    const left = Math.ceil((end - Date.now()) / 1000);
    if (left > 0) {
      const minutes = Math.floor(left / 60);
      clock.textContent = (minutes ? `${minutes} min ` : "") + `${left % 60} s`;
      return;
    }
    clearInterval(timer);
    line.setAttribute("role", "status");
    line.textContent = "You can try again now.";
    if (button) button.disabled = false;
  };
  const timer = setInterval(tick, 1000);
  tick();
}

const wait = document.querySelector("[data-retry-after]");
if (wait) countDown(wait, document.getElementById("try-again"));

document.querySelector(".errors")?.parentElement.querySelector("input, textarea, select")?.focus();

/** Let a button show the password that is being typed. It is hidden again when the form is sent. */
function letReveal(button) {
  const input = document.getElementById(button.getAttribute("aria-controls"));
  const show = (shown) => {
    input.type = shown ? "text" : "password";
    button.setAttribute("aria-pressed", shown);
  };
  button.hidden = false;
  button.addEventListener("click", () => show(input.type === "password"));
  input.form.addEventListener("submit", () => show(false));
}

document.querySelectorAll("[data-reveal]").forEach(letReveal);

/** Say under a new password how many characters are missing. The server judges all else. */
function tellLength(input) {
  const least = Number(input.dataset.minLength);
  const line = document.createElement("p");
  line.className = "hint";
  line.setAttribute("role", "status");
  input.closest(".field").append(line);
  let pause;
  const tell = () => {
    const missing = least - [...input.value.normalize("NFKC")].length; // counted as the server does
    const long = "Long enough. Longer, and of unrelated words, is stronger.";
    line.textContent = missing > 0 ? `${missing} more character${missing > 1 ? "s" : ""} needed.` : long;
  };
  input.addEventListener("input", () => {
    clearTimeout(pause); // a screen reader should read it after a word, not after each key
    pause = setTimeout(tell, 500);
  });
}

document.querySelectorAll("[data-min-length]").forEach(tellLength);
