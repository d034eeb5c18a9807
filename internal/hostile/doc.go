// Package hostile is a registry and its token server, in memory, that behave as badly as real ones do, for
// the tests of clients. What each of them does wrong is switched on by itself; with nothing switched on
// they are a polite pair, to which whole images can be pushed and from which they can be pulled.
//
//	tokens := hostile.NewTokenServer(&hostile.TokenOptions{Users: map[string]string{"ada": "secret"}})
//	registry := hostile.NewRegistry(&hostile.Options{Tokens: tokens, RefuseMounts: 405})
//	url := hostile.Serve(t, registry) // http://127.0.0.1:PORT
//	// ... the client's work ...
//	for _, r := range registry.Requests() { ... } // what it was asked, and with which authorisation
//
// A test that wants names, https or a clock of its own puts them into a [Network], which has no sockets
// and so works under testing/synctest:
//
//	network := hostile.NewNetwork()
//	defer network.Close()
//	network.Handle("https://registry.example", registry)
//	client := &http.Client{Transport: network}
//
// The comments say "row N" where an option is for case N of docs/remotes.md.
package hostile
