package auth

import "context"

// Trace tells how a request was authorised, for a message that says which credential was refused.
// A Trace is for one request at a time: it is filled before RoundTrip returns a response, and for
// each hop of a redirect anew.
type Trace struct {
	// Credential says which credential was behind the request that was answered, as its String
	// does: "alice", "anonymous". Empty: it was sent without authorisation, or with the caller's own.
	Credential string
	// Granted reports that the request bore a token that a token server has given for the
	// credential. If the registry refuses it nevertheless, the credential is good and lacks the right.
	Granted bool
	// TurnedDown says why the stored credential was left out, where [Transport.AnonymousRetry]
	// has done without it. Nil: it was not.
	TurnedDown error
}

type traceKey struct{}

// WithTrace returns a context whose requests fill in trace.
func WithTrace(ctx context.Context, trace *Trace) context.Context {
	return context.WithValue(ctx, traceKey{}, trace)
}

// report fills in the trace of ctx, if there is one.
func report(ctx context.Context, g grant) {
	if trace, _ := ctx.Value(traceKey{}).(*Trace); trace != nil {
		*trace = Trace{Credential: g.credential, Granted: g.token != nil && !g.direct, TurnedDown: g.turnedDown}
	}
}
