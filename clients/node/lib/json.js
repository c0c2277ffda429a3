'use strict'
/**
 * JSON without losing digits: a number that a JavaScript number cannot hold is read as a BigInt
 * when it is an integer, else as its text; a BigInt is written as a number.
 *
 * The engine's own JSON.parse reads everything unless such a number may be in the text.
 */
const { randomBytes } = require('node:crypto')

// A double has all of fifteen digits. A number stands at the start or after one of these.
const LONG_NUMBER = /(?:^|[[:,\s])-?(?:\d[.\d]{15}|\d[.\d]*[eE])/
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y
const BLANK = /[ \t\n\r]*/y
const ESCAPED_OR_CONTROL = /[\\\u0000-\u001f]/ // eslint-disable-line no-control-regex
const WORDS = { t: ['true', true], f: ['false', false], n: ['null', null] }
// Nobody can guess it, so no string of a caller's has it.
const MARK = randomBytes(16).toString('hex')
const MARKED = new RegExp(`"${MARK}(-?\\d+)"`, 'g')

/** Raises SyntaxError. */
function parse (text) {
  return LONG_NUMBER.test(text) ? new Reader(text).read() : JSON.parse(text)
}

/** undefined for what has no place in JSON, as JSON.stringify. */
function stringify (value) {
  let big = false
  const text = JSON.stringify(value, (_, member) => {
    if (typeof member !== 'bigint') return member
    big = true
    return `${MARK}${member}`
  })
  return big ? text.replace(MARKED, '$1') : text
}

class Reader {
  constructor (text) {
    this._text = text
    this._at = 0
  }

  read () {
    const value = this._value()
    this._blank()
    if (this._at !== this._text.length) throw this._unexpected()
    return value
  }

  _value () {
    this._blank()
    const first = this._text[this._at]
    switch (first) {
      case '{': return this._object()
      case '[': return this._array()
      case '"': return this._string()
      case 't': case 'f': case 'n': return this._word(...WORDS[first])
      default: return this._number()
    }
  }

  _object () {
    const object = {}
    this._at++
    if (this._ends('}')) return object
    do {
      this._blank()
      const name = this._string()
      this._expect(':')
      const value = this._value()
      // As JSON.parse does: __proto__ is a name like any other.
      if (name === '__proto__') {
        Object.defineProperty(object, name, {
          value, enumerable: true, configurable: true, writable: true
        })
      } else object[name] = value
    } while (this._goesOn('}'))
    return object
  }

  _array () {
    const array = []
    this._at++
    if (this._ends(']')) return array
    do array.push(this._value()); while (this._goesOn(']'))
    return array
  }

  _string () {
    const start = this._at
    if (this._text[start] !== '"') throw this._unexpected()
    let end = start
    do {
      end = this._text.indexOf('"', end + 1)
      if (end === -1) throw new SyntaxError('a string has no end')
    } while (this._isEscaped(end))
    this._at = end + 1
    const inside = this._text.slice(start + 1, end)
    return ESCAPED_OR_CONTROL.test(inside) ? JSON.parse(`"${inside}"`) : inside
  }

  _isEscaped (quote) {
    let backslashes = 0
    while (this._text[quote - 1 - backslashes] === '\\') backslashes++
    return backslashes % 2 === 1
  }

  _number () {
    NUMBER.lastIndex = this._at
    const found = NUMBER.exec(this._text)
    if (found === null) throw this._unexpected()
    this._at = NUMBER.lastIndex
    return exact(found[0])
  }

  _word (word, value) {
    if (!this._text.startsWith(word, this._at)) throw this._unexpected()
    this._at += word.length
    return value
  }

  _blank () {
    BLANK.lastIndex = this._at
    BLANK.exec(this._text)
    this._at = BLANK.lastIndex
  }

  _ends (bracket) {
    this._blank()
    if (this._text[this._at] !== bracket) return false
    this._at++
    return true
  }

  _goesOn (bracket) {
    if (this._ends(bracket)) return false
    this._expect(',')
    return true
  }

  _expect (sign) {
    if (!this._ends(sign)) throw this._unexpected()
  }

  _unexpected () {
    const what = this._at < this._text.length ? JSON.stringify(this._text[this._at]) : 'end'
    return new SyntaxError(`Unexpected ${what} in JSON at position ${this._at}`)
  }
}

/** A number where it holds all the digits, a BigInt for other integers, else the text. */
function exact (text) {
  const number = Number(text)
  if (/^-?\d+$/.test(text)) return Number.isSafeInteger(number) ? number : BigInt(text)
  return Number.isFinite(number) && same(text, String(number)) ? number : text
}

/** Two ways to write the same number. */
function same (one, other) {
  const [a, b] = [significant(one), significant(other)]
  return a.digits === b.digits && (a.digits === '' || a.exponent === b.exponent)
}

/** 0.digits x 10^exponent, without zeros at either end. The sign is the same on both sides. */
function significant (text) {
  const [mantissa, power] = text.toLowerCase().replace('-', '').split(/e/)
  const [whole, fraction = ''] = mantissa.split('.')
  const all = whole + fraction
  const leading = all.length - all.replace(/^0+/, '').length
  const exponent = whole.length - leading + Number(power ?? 0)
  return { digits: all.replace(/^0+/, '').replace(/0+$/, ''), exponent }
}

module.exports = { parse, stringify }
