import plan2 = require('@plan2/client')

export const client: plan2.Client = new plan2.Client()
