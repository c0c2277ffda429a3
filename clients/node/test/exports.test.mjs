import assert from 'node:assert/strict'
import fs from 'node:fs'
import { createRequire } from 'node:module'
import { test } from 'node:test'
import * as esm from '@plan2/client'

const cjs = createRequire(import.meta.url)('@plan2/client')
const declared = fs.readFileSync(new URL('../index.d.ts', import.meta.url), 'utf8')

test('import and require give the same classes', () => {
  assert.deepEqual(Object.keys(esm).sort(), Object.keys(cjs).sort())
  for (const [name, value] of Object.entries(cjs)) assert.equal(esm[name], value)
})

test('the types declare what is exported, and no more', () => {
  const names = [...declared.matchAll(/^export (?:class|function) (\w+)/gm)].map(([, name]) => name)

  assert.deepEqual(names.sort(), Object.keys(cjs).sort())
})

test('the types declare every method', () => {
  const client = new esm.Client({ environ: {} })
  const parts = Object.entries(client).filter(([name]) => !name.startsWith('_'))
  assert.equal(parts.length, 7)
  for (const [name, part] of parts) {
    const block = declared.match(new RegExp(`readonly ${name}: \\{([^]*?)\\n {2}\\}`))[1]
    const methods = [...block.matchAll(/^ {4}(\w+)[<(]/gm)].map(([, method]) => method)
    const real = Object.getOwnPropertyNames(Object.getPrototypeOf(part))
    assert.deepEqual(methods.sort(), real.filter((method) => method !== 'constructor').sort())
  }
})
