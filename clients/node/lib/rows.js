'use strict'
/**
 * The rows of a stream as an async iterable: `for await (const row of rows)`.
 *
 * `end` is known after the last row. Leaving early costs the connection and nothing else.
 */
const json = require('./json.js')
const { fromAnswer, StreamCut } = require('./errors.js')

class Rows {
  constructor (pieces) {
    /** `{rowCount, meta}` once every row was read. */
    this.end = undefined
    this._rows = this._read(pieces)
  }

  [Symbol.asyncIterator] () {
    return this._rows
  }

  /** Stop reading; the sidecar stops the engine. */
  async close () {
    await this._rows.return()
  }

  async * _read (pieces) {
    let held
    for await (const line of lines(pieces)) {
      const row = parsed(line)
      if (held !== undefined) {
        // Something follows, so that was a row whose only column has such a name.
        yield held
        held = undefined
      }
      if (isLast(row)) held = row
      else yield row
    }
    this.end = ended(held)
  }
}

async function * lines (pieces) {
  let pending = []
  for await (const piece of pieces) {
    const [first, ...rest] = piece.split('\n')
    pending.push(first)
    for (const next of rest) {
      const line = pending.join('')
      pending = [next]
      if (line.trim() !== '') yield line
    }
  }
  const line = pending.join('')
  if (line.trim() !== '') yield line
}

function parsed (line) {
  try {
    return json.parse(line)
  } catch (error) {
    throw new StreamCut(`a row is not whole: ${error.message}`, {}, { cause: error })
  }
}

function isLast (row) {
  if (row === null || typeof row !== 'object' || Array.isArray(row)) return false
  const [name, ...more] = Object.keys(row)
  return more.length === 0 && (name === '$end' || name === '$error')
}

function ended (last) {
  if (last === undefined) throw new StreamCut('the rows ended in the middle')
  if (last.$error !== undefined) throw fromAnswer(last.$error.status ?? 500, last.$error)
  return last.$end
}

module.exports = { Rows }
