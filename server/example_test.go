package server_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/berthoci/berth/ocilayout"
	"github.com/berthoci/berth/server"
)

// A registry over a directory, whose tokens everybody gets who wants to read what is public.
func Example() {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	layout, err := ocilayout.Open(context.Background(), dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer layout.Close()

	rules, err := server.ParseRules(strings.NewReader(`rules: [{anonymous: true, repositories: ["public/*"], actions: [pull]}]`))
	if err != nil {
		log.Fatal(err)
	}
	issuer, err := server.NewIssuer(rules, nil)
	if err != nil {
		log.Fatal(err)
	}
	opts := &server.Options{Authorizer: issuer, ReadOnly: true}
	if err := opts.Validate(); err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{
		Handler:           server.New(layout, opts),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		WriteTimeout:      time.Minute,
	}
	go srv.Serve(listener)
	defer srv.Close()

	resp, err := http.Get("http://" + listener.Addr().String() + "/v2/")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)
	// Output: 401 Unauthorized
}
