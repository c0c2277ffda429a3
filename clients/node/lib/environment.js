'use strict'
/**
 * Where the sidecar is and what opens it, from the variables that the injector sets.
 *
 * `PLAN2_SOCKET` (cheaper) goes before `PLAN2_URL`, and is left out while nothing is at its path
 * and the URL is known too. `PLAN2_API_TOKEN` goes before the first line of
 * `PLAN2_API_TOKEN_FILE`.
 */
const fs = require('node:fs')

const DEFAULT_URL = 'http://127.0.0.1:7420'

/** `{socketPath}` or `{host, port}`, and `authority`, what the Host header says. */
function address ({ url, socketPath, environ }) {
  if (url === undefined && socketPath === undefined) {
    url = environ.PLAN2_URL || undefined
    socketPath = environ.PLAN2_SOCKET || undefined
    if (socketPath !== undefined && url !== undefined && !isSocket(socketPath)) {
      socketPath = undefined
    }
  }
  if (socketPath !== undefined) {
    return { socketPath, authority: 'localhost', toString: () => socketPath }
  }
  const parts = parsed(url ?? DEFAULT_URL)
  if (parts === undefined || parts.protocol !== 'http:' || parts.pathname !== '/') {
    throw new TypeError(`the sidecar's URL is not of the form ${DEFAULT_URL}: ${url}`)
  }
  const host = parts.hostname.replace(/^\[(.*)\]$/, '$1')
  const authority = parts.host
  return { host, port: Number(parts.port || 80), authority, toString: () => `http://${authority}` }
}

function parsed (url) {
  try {
    return new URL(url)
  } catch {
    return undefined
  }
}

function isSocket (path) {
  return fs.statSync(path, { throwIfNoEntry: false })?.isSocket() ?? false
}

/** The bearer token; one from a file is read again when the sidecar refuses it. */
class Token {
  constructor (token, environ) {
    const fixed = token ?? (environ.PLAN2_API_TOKEN || undefined)
    this._file = fixed === undefined ? environ.PLAN2_API_TOKEN_FILE || undefined : undefined
    this._current = fixed
  }

  /** undefined where none is configured, or its file cannot be read yet. */
  get current () {
    this._current ??= this._read()
    return this._current
  }

  /** Whether there is another one than the sidecar just refused. */
  renewed (refused) {
    if (this._file !== undefined) this._current = this._read()
    return this._current !== undefined && this._current !== refused
  }

  _read () {
    if (this._file === undefined) return undefined
    let text
    try {
      text = fs.readFileSync(this._file, 'utf8')
    } catch {
      return undefined
    }
    return text.split('\n').map((line) => line.trim()).find((line) => line !== '')
  }
}

module.exports = { address, Token }
