// A sidecar that answers what a test says, and remembers what it was asked.
import http from 'node:http'
import { once } from 'node:events'

/** `answer(request)` gives `{status, headers, body}`, or writes to `request.response` itself. */
export async function fake (context, answer, listenAt = 0) {
  const asked = []
  const server = http.createServer(async (incoming, response) => {
    let text = ''
    for await (const piece of incoming) text += piece
    const request = {
      method: incoming.method,
      path: incoming.url,
      headers: incoming.headers,
      body: text === '' ? undefined : JSON.parse(text),
      text,
      socket: incoming.socket,
      response
    }
    asked.push(request)
    const said = await answer(request, asked.length)
    if (said === undefined) return
    const { status = 200, headers = {}, body } = said
    const content = typeof body === 'string' ? body : JSON.stringify(body)
    response.writeHead(status, { 'Content-Type': 'application/json', ...headers }).end(content)
  })
  server.listen(listenAt, typeof listenAt === 'number' ? '127.0.0.1' : undefined)
  await once(server, 'listening')
  context.after(() => {
    server.closeAllConnections()
    server.close()
  })
  return { asked, server, url: `http://127.0.0.1:${server.address().port}` }
}

export function problem (status, code, members = {}) {
  const type = `https://plan2.io/problems/${code}`
  return { status, body: { type, title: code, status, detail: `said ${code}`, code, ...members } }
}
