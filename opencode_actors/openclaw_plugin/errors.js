// What can go wrong between a tool call and the service, told to whoever asked.

/** The service could not be reached, or the connection ended before its answer: asking again may help. */
export class Unreachable extends Error {
  name = "Unreachable";

  /** @param {string} message @param {{neverSent?: boolean}} [how] `neverSent`: nothing was asked of it */
  constructor(message, { neverSent = false } = {}) {
    super(message);
    this.neverSent = neverSent;
  }
}

/** The service is there and does not let us in: asking again does not help. */
export class TurnedAway extends Error {
  name = "TurnedAway";
}

/** No service runs, and none is to be started. */
export class NotRunning extends Error {
  name = "NotRunning";
}

/** The service did not do it, and says why. */
export class Refused extends Error {
  name = "Refused";

  /** @param {{code?: number, message?: string, data?: {cause?: string, hint?: string}}} error of JSON-RPC */
  constructor(error) {
    const message = error.message || "the opencode service refused without a reason";
    const hint = error.data?.hint;
    super(hint ? `${message}\nhint: ${hint}` : message);
    this.code = error.code ?? -32603;
    this.data = error.data ?? {};
  }
}

/** @param {unknown} error @returns {string} */
export function textOfError(error) {
  return error instanceof Error ? error.message : String(error);
}
