import assert from 'node:assert/strict'
import { test } from 'node:test'
import json from '../lib/json.js'

const exact = [
  ['9007199254740991', 9007199254740991],
  ['9007199254740992', 9007199254740992n],
  ['-9223372036854775808', -9223372036854775808n],
  ['18446744073709551615', 18446744073709551615n],
  ['12345678901234567.89', '12345678901234567.89'],
  ['0.1234567890123456789', '0.1234567890123456789'],
  ['0.30000000000000004', 0.30000000000000004],
  ['100.500000000000000000', 100.5],
  ['1e400', '1e400'],
  ['1.5e3', 1500],
  ['1e-7', 1e-7],
  ['-0.0000000000000000', -0],
  ['5e-324', 5e-324]
]
for (const [text, value] of exact) {
  test(`${text} keeps its digits`, () => {
    assert.deepStrictEqual(json.parse(`[${text}]`), [value])
  })
}

test('a text with a long number is otherwise read as JSON.parse reads it', () => {
  const samples = [
    '{"a":[],"b":{},"c":[true,false,null,""],"d":{"e":[[1],[2]]}}',
    '{"text":"a\\"b\\\\","line":"\\n\\u00e9é","end":"\\\\"}',
    ' [ 1 , { "x" : -2.5e+3 } ] ',
    '{"same":1,"same":2}'
  ]
  for (const sample of samples) {
    const [, read] = json.parse(`[1234567890123456789, ${sample}]`)
    assert.deepStrictEqual(read, JSON.parse(sample))
  }
})

test('a member named __proto__ is a member', () => {
  const read = json.parse('{"__proto__": {"polluted": 12345678901234567890}}')
  assert.equal(Object.getPrototypeOf(read), Object.prototype)
  assert.equal(read.polluted, undefined)
  assert.deepEqual(Object.keys(read), ['__proto__'])
})

const broken = [
  '[1234567890123456789', '[1234567890123456789,]', '{"a" 1234567890123456789}', '[01234567890123456789]',
  '[1234567890123456789] x', '[1234567890123456789, "abc]', '[1234567890123456789, tru]', '{1234567890123456789:1}',
  '[1234567890123456789, "\n"]', '[1234567890123456789, "\\x"]', '[1234567890123456789 2]', '[1234567890123456789, +1]'
]
for (const text of broken) {
  test(`${JSON.stringify(text)} is not JSON`, () => {
    assert.throws(() => json.parse(text), SyntaxError)
  })
}

test('a BigInt is written as a number, wherever it stands', () => {
  const text = json.stringify({ params: [9007199254740993n, '9007199254740993', { deep: [-1n] }] })
  assert.equal(text, '{"params":[9007199254740993,"9007199254740993",{"deep":[-1]}]}')
})
