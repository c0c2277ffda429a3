'use strict'
/**
 * Requests over node:http: kept-alive connections, one deadline, AbortSignal, errors as classes.
 *
 * Nothing is retried here; the one thing sent twice is a call that was refused for a token which
 * has rotated since.
 */
const http = require('node:http')
const json = require('./json.js')
const { address, Token } = require('./environment.js')
const errors = require('./errors.js')

const DEFAULT_TIMEOUT_MS = 5000
const LONGEST_TIMEOUT_MS = 60000
// The sidecar's own word that the deadline passed says more than our clock: it goes first.
const GRACE_MS = 500
const IDLE_MS = 30000

class Transport {
  constructor ({
    url, socketPath, token, timeoutMs = DEFAULT_TIMEOUT_MS, maxSockets = 100, environ = process.env
  } = {}) {
    this.address = address({ url, socketPath, environ })
    this.timeoutMs = timeoutMs
    this._token = new Token(token, environ)
    this._agent = new http.Agent({
      keepAlive: true, keepAliveMsecs: IDLE_MS, timeout: IDLE_MS, maxSockets, scheduling: 'lifo'
    })
  }

  /** The answer to a call, `{status, headers, document}`; rejects with Plan2Error. */
  async send (call) {
    const watch = this._watch(call)
    try {
      const response = await this._response(call, watch)
      const document = documentOf(response, await textOf(response))
      if (response.statusCode >= 400) throw errors.fromAnswer(response.statusCode, document)
      return { status: response.statusCode, headers: response.headers, document }
    } catch (error) {
      throw this._translated(error, call, watch)
    } finally {
      watch.end()
    }
  }

  /** The body of a call's answer in pieces of text. */
  async * pieces (call) {
    const watch = this._watch(call)
    let started = false
    try {
      const response = await this._response(call, watch)
      if (response.statusCode >= 400) {
        const document = documentOf(response, await textOf(response))
        throw errors.fromAnswer(response.statusCode, document)
      }
      started = true
      response.setEncoding('utf8')
      for await (const piece of response) {
        // The sidecar ends a stream at its deadline; only its silence has a limit here.
        watch.rest()
        yield piece
        watch.goOn()
      }
    } catch (error) {
      const said = this._translated(error, call, watch)
      if (!started || said.constructor !== errors.ConnectionLost) throw said
      throw new errors.StreamCut(`the rows ended in the middle: ${error.message}`, {}, { cause: error })
    } finally {
      watch.end()
    }
  }

  close () {
    this._agent.destroy()
  }

  _watch (call) {
    const timeoutMs = call.timeoutMs ?? this.timeoutMs
    if (!(timeoutMs >= 1 && timeoutMs <= LONGEST_TIMEOUT_MS)) {
      throw new RangeError(`timeoutMs is 1 to ${LONGEST_TIMEOUT_MS}, not ${timeoutMs}`)
    }
    return new Watch(Math.ceil(timeoutMs), call.signal)
  }

  async _response (call, watch) {
    const body = call.body === undefined ? undefined : Buffer.from(json.stringify(call.body))
    const token = this._token.current
    const response = await this._request(call, body, token, watch)
    if (response.statusCode !== 401 || !this._token.renewed(token)) return response
    response.resume()
    return this._request(call, body, this._token.current, watch)
  }

  _request (call, body, token, watch) {
    const { host, port, socketPath, authority } = this.address
    const headers = {
      Host: authority, Accept: 'application/json', 'X-Deadline-Ms': watch.timeoutMs, ...call.headers
    }
    if (token !== undefined) headers.Authorization = `Bearer ${token}`
    if (body !== undefined) {
      headers['Content-Type'] = 'application/json'
      headers['Content-Length'] = body.length
    }
    const target = socketPath === undefined ? { host, port } : { socketPath }
    return new Promise((resolve, reject) => {
      const request = http.request({
        ...target, agent: this._agent, method: call.method, path: call.path, headers
      })
      watch.follow(request)
      request.once('response', resolve)
      request.on('error', reject)
      request.end(body)
    })
  }

  _translated (error, call, watch) {
    if (watch.reason !== undefined) return watch.reason
    if (error instanceof errors.Plan2Error || error.code === undefined) return error
    const detail = `${this.address}: ${error.message}`
    if (error.syscall === 'connect' || error.syscall === 'getaddrinfo') {
      return new errors.SidecarUnreachable(detail, { retryable: true }, { cause: error })
    }
    if (String(error.code).startsWith('ERR_INVALID')) return error
    return new errors.ConnectionLost(detail, { retryable: call.method === 'GET' }, { cause: error })
  }
}

/** Ends a request when the time is over or the caller aborts; `reason` is what to say then. */
class Watch {
  constructor (timeoutMs, signal) {
    signal?.throwIfAborted()
    this.timeoutMs = timeoutMs
    this.reason = undefined
    this._request = undefined
    this._signal = signal
    this._abort = () => this._stop(signal.reason)
    signal?.addEventListener('abort', this._abort, { once: true })
    this.goOn()
  }

  follow (request) {
    this._request = request
  }

  /** The other side has its whole time from now. */
  goOn () {
    const { timeoutMs } = this
    this._timer = setTimeout(() => {
      this._stop(new errors.DeadlineExceeded(`no answer within ${timeoutMs} ms`))
    }, timeoutMs + GRACE_MS)
  }

  /** It is the caller's turn, which takes as long as it takes. */
  rest () {
    clearTimeout(this._timer)
  }

  end () {
    this.rest()
    this._signal?.removeEventListener('abort', this._abort)
  }

  _stop (reason) {
    this.reason ??= reason
    this._request?.destroy(new Error('stopped'))
  }
}

async function textOf (response) {
  response.setEncoding('utf8')
  let text = ''
  for await (const piece of response) text += piece
  return text
}

function documentOf (response, text) {
  if (text === '') return undefined
  try {
    return json.parse(text)
  } catch (error) {
    if (response.statusCode >= 400) return { detail: text.slice(0, 200) }
    const members = { status: response.statusCode }
    throw new errors.ConnectionLost(`the answer is not JSON: ${error.message}`, members)
  }
}

module.exports = { LONGEST_TIMEOUT_MS, Transport }
